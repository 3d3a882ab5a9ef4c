// SQLite's files, failing as a plan says.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <string>

#include "tests/support/fault_plan.h"

namespace boss::testing {

// Registers an SQLite VFS over the default one, under a name of its own, until this goes away. Writes, syncs and
// truncations of databases, journals and write-ahead logs are operations of the plan, and so are deletions; shared
// memory and temporary files go straight through. `plan` outlives it, and it outlives the connections that use it.
class FaultVfs {
 public:
  explicit FaultVfs(FaultPlan& plan);
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  const std::string& name() const { return name_; }
  FaultPlan& plan() const { return plan_; }
  sqlite3_vfs* base() const { return base_; }
  // For xGetLastError: SQLite reports it as the system's error.
  int last_error = 0;

 private:
  FaultPlan& plan_;
  const std::string name_;
  sqlite3_vfs* const base_;
  sqlite3_vfs vfs_;
};

}  // namespace boss::testing
