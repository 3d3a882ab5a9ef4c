// What a program that evaluates networks asks of its process; linked into such programs by the target
// boss::compute_process, which also brings the allocator.
#include <cstdlib>

namespace {

// An OpenMP thread that waits at a barrier spins before it sleeps: by GNU's default for milliseconds. Where another
// process takes a core, those are taken from the very thread that is waited for, and an evaluation takes a hundred
// times as long. A thousand turns are a few microseconds: as fast on a quiet machine, and sane on a busy one.
void BoundSpinning() {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/0);
}

// libgomp reads its environment when it is loaded, before main() and any constructor of the program, but after this.
__attribute__((section(".preinit_array"), used)) void (*const bound_spinning)() = BoundSpinning;

}  // namespace
