#include "server/app/run.h"

int main(int argc, char** argv) { return boss::server::RunServer(argc, argv); }
