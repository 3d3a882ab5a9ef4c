// What a report is made of, from a server.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/boss_client.h"
#include "client/report/report.h"

namespace boss::client {

// The job with all its events so far.
absl::StatusOr<ReportJob> FetchReportJob(Client& client, const std::string& name);

// When and with what the page was made.
absl::StatusOr<std::string> ReportFooter(Client& client);

}  // namespace boss::client
