// What the commands of bossctl models share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "boss/v1/models.pb.h"
#include "client/cli/context.h"

namespace boss::client {

void PrintVersion(Context& context, const boss::v1::ModelVersion& version);

// "digits@1, rank 4, alpha 8".
std::string AdapterText(const boss::v1::ModelVersion::Adapter& adapter);

// bossctl models adapters, bossctl models merge.
void AddAdapterCommands(CLI::App& models, Context& context);

}  // namespace boss::client
