// What this is: the checks that all losses over a student map and a teacher map share.
#pragma once

#include "core/error.h"
#include "core/tensor.h"
#include "ops/copy.h"

namespace limbeck::distill {

/// Throws unless both are floating, not empty, on one device, of types that a kernel takes together (f32/bf16 in any mix,
/// or both f64), and the teacher is not differentiated.
/// Shapes:   student, teacher any
inline void check_pair_kinds(const char* loss, const Tensor& student, const Tensor& teacher) {
  ops::check_float(loss, student);
  ops::check_float(loss, teacher);
  LIMBECK_CHECK(student.numel() > 0, loss, "maps of shape {} are empty", student.shape());
  LIMBECK_CHECK(teacher.numel() > 0, loss, "maps of shape {} are empty", teacher.shape());
  LIMBECK_CHECK((student.dtype() == DType::kF64) == (teacher.dtype() == DType::kF64), loss,
                "student of type {}, teacher of type {}, expected f32 or bf16, or both f64", name_of(student.dtype()),
                name_of(teacher.dtype()));
  LIMBECK_CHECK(student.device() == teacher.device(), loss, "student on {}, teacher on {}",
                student.device().to_string(), teacher.device().to_string());
  LIMBECK_CHECK(
      !teacher.requires_grad(), loss,
      "the teacher requires grad, expected a fixed target; freeze() the teacher, run it under NoGradGuard, or pass "
      "teacher.detach()");
}

/// As above, and the shapes are equal.
/// Shapes:   student, teacher equal
inline void check_pair(const char* loss, const Tensor& student, const Tensor& teacher) {
  ops::check_float(loss, student);
  ops::check_float(loss, teacher);
  LIMBECK_CHECK(
      student.shape() == teacher.shape(), loss,
      "student of shape {}, teacher of shape {}, expected equal shapes; resize one map, or put an adapter on the "
      "student",
      student.shape(), teacher.shape());
  check_pair_kinds(loss, student, teacher);
}

/// For losses that compare maps of different channel counts: as check_pair_kinds, and N, H and W are equal.
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]
inline void check_positions(const char* loss, const Tensor& student, const Tensor& teacher) {
  ops::check_float(loss, student);
  ops::check_float(loss, teacher);
  const Shape& s = student.shape();
  const Shape& t = teacher.shape();
  LIMBECK_CHECK(s.size() == 4 && t.size() == 4, loss, "maps of shapes {} and {}, expected [N,C,H,W]", s, t);
  LIMBECK_CHECK(s[0] == t[0] && s[2] == t[2] && s[3] == t[3], loss,
                "student of shape {}, teacher of shape {}, expected equal N, H and W; resize one map", s, t);
  check_pair_kinds(loss, student, teacher);
}

/// Throws unless tau is a positive finite number.
/// Shapes:   none
inline void check_temperature(const char* loss, double tau) {
  LIMBECK_CHECK(tau > 0 && tau < 1e30, loss, "temperature tau = {}, expected a positive number", tau);
}

}  // namespace limbeck::distill
