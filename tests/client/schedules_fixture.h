// bossctl against a server with the schedules of one version.
#pragma once

#include "tests/client/bossctl_fixture.h"

namespace boss::client {

class SchedulesFixture : public BossctlFixture {
 protected:
  SchedulesFixture() {
    server_.models.model.set_name("flow");
    auto& version = *server_.models.model.add_versions();
    version.set_model("flow");
    version.set_version("1");
    version.set_weights_sha256("ab12");
    server_.models.model.add_sample_shape(2);
    server_.models.schedules = MakeScheduleSet();
  }

  // Makes the version one that was straightened for two steps, and that coefficients were fitted to.
  void AddStraightened() {
    server_.models.model.mutable_versions(0)->set_straightened_steps(2);
    boss::v1::ScheduleSet& euler = server_.models.own_schedules.emplace_back();
    euler.set_model("flow@1");
    euler.set_kind(boss::v1::SCHEDULE_KIND_BELLMAN);
    euler.set_solver(boss::v1::SOLVER_EULER);
    euler.set_guidance_scale(1);
    euler.set_k_max(8);
    euler.add_schedules()->set_steps(2);
    for (const double t : {0.0, 0.375, 1.0}) euler.mutable_schedules(0)->add_time_grid(t);
    boss::v1::ScheduleSet multistep = euler;
    euler.mutable_schedules(0)->set_total_cost(0.75);
    multistep.set_solver(boss::v1::SOLVER_MULTISTEP);
    multistep.set_num_samples(64);
    multistep.set_num_held_out(16);
    FitMultistep(*multistep.mutable_schedules(0));
    server_.models.own_schedules.push_back(multistep);
  }

  // Coefficients and errors of two steps.
  static void FitMultistep(boss::v1::Schedule& schedule) {
    schedule.set_fit_error(0.125);
    schedule.set_held_out_error(0.1875);
    schedule.add_coefficients()->set_state(1);
    schedule.mutable_coefficients(0)->add_velocities(0.5);
    schedule.add_coefficients()->set_state(0.875);
    schedule.mutable_coefficients(1)->add_velocities(0.75);
    schedule.mutable_coefficients(1)->add_velocities(-0.25);
  }
};

}  // namespace boss::client
