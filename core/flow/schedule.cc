#include "core/flow/schedule.h"

namespace boss {

std::string_view SolverName(SolverKind solver) {
  switch (solver) {
    case SolverKind::kEuler:
      return "euler";
    case SolverKind::kHeun:
      return "heun";
    case SolverKind::kRk45:
      return "rk45";
    case SolverKind::kMultistep:
      return "multistep";
  }
  return "unknown";
}

std::optional<SolverKind> ParseSolver(std::string_view name) {
  for (SolverKind solver : {SolverKind::kEuler, SolverKind::kHeun, SolverKind::kRk45, SolverKind::kMultistep}) {
    if (SolverName(solver) == name) return solver;
  }
  return std::nullopt;
}

}  // namespace boss
