// One self-contained HTML page about jobs: no scripts, no links, everything inline.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "boss/v1/jobs.pb.h"
#include "boss/v1/models.pb.h"

namespace boss::client {

struct ReportJob {
  boss::v1::Job job;
  std::vector<boss::v1::JobEvent> events;  // from the first on
};

struct ReportGrid {
  std::string label;
  std::string png;
};

struct ReportData {
  std::string title;
  std::vector<ReportJob> jobs;
  std::optional<boss::v1::ScheduleSet> schedules;  // with the cost matrix, if it is to be drawn
  std::vector<ReportGrid> grids;
  std::string footer;  // when and with what the page was made
};

// The numbers of steps that the page shows schedules for: those of the jobs and their evaluations; 2, 4, 6 and 8 if
// there are none.
std::vector<int> ReportSteps(const std::vector<ReportJob>& jobs);

std::string RenderReport(const ReportData& data);

}  // namespace boss::client
