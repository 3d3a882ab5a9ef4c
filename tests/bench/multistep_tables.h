// Smaller tables about multistep schedules, all of trajectory errors on noises that no fit has seen.
#pragma once

#include "absl/status/status.h"
#include "tests/bench/multistep_study.h"

namespace boss {

// Uniform Euler, Euler's schedules, Adams and Bashforth's method, and what is fitted on either list of times.
absl::Status PrintMethods(const StudyOptions& options);

// What is fitted to 16 .. 256 noises; options.fit is not read.
absl::Status PrintNumbersOfNoises(StudyOptions options);

// Steps that may use 2 velocities, 3, or all that there are; in brackets the most that one does use.
absl::Status PrintOrders(const StudyOptions& options);

// Weights that were straightened to Euler's schedules: with Euler's steps, and with coefficients that are fitted to
// the teacher's states of the pairs' held-out noises, to those of the search's noises, and to the straightened
// network's own fine states.
absl::Status PrintStraightened(const StudyOptions& options);

// How few steps look, at 4 of them: the standard deviation of all pixels and the root mean square difference of
// horizontal neighbours, beside the trajectory error.
absl::Status PrintPictures(const StudyOptions& options);

// A search of single times from the best schedules, with two budgets, which are what so many fits take.
absl::Status PrintRefinement(const StudyOptions& options);

}  // namespace boss
