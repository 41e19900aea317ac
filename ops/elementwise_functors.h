// What this is: one small struct per elementwise op with its value and its derivative. The reference, the vectorised
//   and any device kernel instantiate the same structs; adding an op means adding a struct and a line in a list.
// What it is not: loops (elementwise_ref.cpp, elementwise_cpu.cpp) or checks (elementwise.cpp).
//
// Note [functors]
//   `M` supplies exp, log, tanh: the C++ library in references, core/vec_math.h in vector loops. `T` is the type that
//   is computed in: double, or float (bf16 is widened to float before and rounded after).
//   Comparisons are written so that a NaN input gives a NaN output: hiding it would hide a diverged run.
#pragma once

#include <cstdint>

#include "core/autocast.h"

namespace limbeck::ops {

/// Numbers that some ops take besides the tensor, e.g. the two limits of clamp.
/// Shapes:   none; functors see one element at a time
struct UnaryArgs {
  double a = 0;
  double b = 0;
};

/// Which tensor the derivative is computed from. The output is preferred where it suffices: it is usually kept alive
/// by the next op anyway, while the input could be freed.
enum class Saved : std::uint8_t { kNothing, kInput, kOutput };

// A functor is a table of one-line formulas; clang-format would give each formula five lines.
// clang-format off

// --- unary: value(x) and slope(s) = dy/dx, s being the saved tensor's element -------------------------------------

struct Neg {
  static constexpr const char* name = "neg";
  static constexpr Saved saved = Saved::kNothing;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) { return -x; }
  template <class M, class T> static constexpr T slope(T, T, T) { return T(-1); }
};

struct AddScalar {
  static constexpr const char* name = "add_scalar";
  static constexpr Saved saved = Saved::kNothing;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T a, T) { return x + a; }
  template <class M, class T> static constexpr T slope(T, T, T) { return T(1); }
};

struct MulScalar {
  static constexpr const char* name = "mul_scalar";
  static constexpr Saved saved = Saved::kNothing;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T a, T) { return x * a; }
  template <class M, class T> static constexpr T slope(T, T a, T) { return a; }
};

struct Relu {
  static constexpr const char* name = "relu";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) { return x <= T(0) ? T(0) : x; }
  template <class M, class T> static constexpr T slope(T y, T, T) { return y > T(0) ? T(1) : T(0); }
};

struct Relu6 {
  static constexpr const char* name = "relu6";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) {
    const T low = x <= T(0) ? T(0) : x;
    return low > T(6) ? T(6) : low;
  }
  template <class M, class T> static constexpr T slope(T y, T, T) {
    const T above = y > T(0) ? T(1) : T(0);
    return y < T(6) ? above : T(0);
  }
};

struct LeakyRelu {
  static constexpr const char* name = "leaky_relu";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T a, T) { return x > T(0) ? x : a * x; }
  template <class M, class T> static constexpr T slope(T x, T a, T) { return x > T(0) ? T(1) : a; }
};

struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) { return T(1) / (T(1) + M::exp(-x)); }
  template <class M, class T> static constexpr T slope(T y, T, T) { return y * (T(1) - y); }
};

struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) { return M::tanh(x); }
  template <class M, class T> static constexpr T slope(T y, T, T) { return T(1) - y * y; }
};

struct Exp {
  static constexpr const char* name = "exp";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kFull;
  template <class M, class T> static constexpr T value(T x, T, T) { return M::exp(x); }
  template <class M, class T> static constexpr T slope(T y, T, T) { return y; }
};

struct Log {
  static constexpr const char* name = "log";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kFull;
  template <class M, class T> static constexpr T value(T x, T, T) { return M::log(x); }
  template <class M, class T> static constexpr T slope(T x, T, T) { return T(1) / x; }
};

struct Sqrt {
  static constexpr const char* name = "sqrt";
  static constexpr Saved saved = Saved::kOutput;
  static constexpr CastPolicy policy = CastPolicy::kFull;
  template <class M, class T> static constexpr T value(T x, T, T) { return M::sqrt(x); }
  template <class M, class T> static constexpr T slope(T y, T, T) { return T(0.5) / y; }
};

struct Square {
  static constexpr const char* name = "square";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kFull;
  template <class M, class T> static constexpr T value(T x, T, T) { return x * x; }
  template <class M, class T> static constexpr T slope(T x, T, T) { return T(2) * x; }
};

struct Abs {
  static constexpr const char* name = "abs";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T, T) { return x < T(0) ? -x : x; }
  template <class M, class T> static constexpr T slope(T x, T, T) {
    const T positive = x > T(0) ? T(1) : T(0);
    return x < T(0) ? T(-1) : positive;
  }
};

struct PowScalar {
  static constexpr const char* name = "pow_scalar";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kFull;
  template <class M, class T> static constexpr T value(T x, T a, T) { return M::pow(x, a); }
  template <class M, class T> static constexpr T slope(T x, T a, T) { return a == T(0) ? T(0) : a * M::pow(x, a - T(1)); }
};

struct Clamp {
  static constexpr const char* name = "clamp";
  static constexpr Saved saved = Saved::kInput;
  static constexpr CastPolicy policy = CastPolicy::kKeep;
  template <class M, class T> static constexpr T value(T x, T a, T b) {
    const T low = x < a ? a : x;
    return low > b ? b : low;
  }
  template <class M, class T> static constexpr T slope(T x, T a, T b) {
    const T above = x >= a ? T(1) : T(0);
    return x <= b ? above : T(0);
  }
};

/// Every unary op; kernels instantiate themselves with it.
#define LIMBECK_UNARY_OPS(X)                                                                                        \
  X(Neg) X(AddScalar) X(MulScalar) X(Relu) X(Relu6) X(LeakyRelu) X(Sigmoid) X(Tanh) X(Exp) X(Log) X(Sqrt) X(Square) \
  X(Abs) X(PowScalar) X(Clamp)

// --- binary: value(a, b), and grad_a, grad_b from the gradient g of the result -----------------------------------
// `passes_a` (`passes_b`): the gradient of that operand is g itself, no kernel runs and nothing is saved for it.

struct Add {
  static constexpr const char* name = "add";
  static constexpr bool passes_a = true, passes_b = true;
  template <class T> static constexpr T value(T a, T b) { return a + b; }
  template <class T> static constexpr T grad_a(T g, T, T) { return g; }
  template <class T> static constexpr T grad_b(T g, T, T) { return g; }
};

struct Sub {
  static constexpr const char* name = "sub";
  static constexpr bool passes_a = true, passes_b = false;
  template <class T> static constexpr T value(T a, T b) { return a - b; }
  template <class T> static constexpr T grad_a(T g, T, T) { return g; }
  template <class T> static constexpr T grad_b(T g, T, T) { return -g; }
};

struct Mul {
  static constexpr const char* name = "mul";
  static constexpr bool passes_a = false, passes_b = false;
  template <class T> static constexpr T value(T a, T b) { return a * b; }
  template <class T> static constexpr T grad_a(T g, T, T b) { return g * b; }
  template <class T> static constexpr T grad_b(T g, T a, T) { return g * a; }
};

struct Div {
  static constexpr const char* name = "div";
  static constexpr bool passes_a = false, passes_b = false;
  template <class T> static constexpr T value(T a, T b) { return a / b; }
  template <class T> static constexpr T grad_a(T g, T, T b) { return g / b; }
  template <class T> static constexpr T grad_b(T g, T a, T b) { return -g * (a / b) / b; }
};

// At a tie both operands are the maximum; each gets half of the gradient.
struct Maximum {
  static constexpr const char* name = "maximum";
  static constexpr bool passes_a = false, passes_b = false;
  template <class T> static constexpr T value(T a, T b) { return a > b || a != a ? a : b; }
  template <class T> static constexpr T grad_a(T g, T a, T b) {
    const T larger = a > b ? g : T(0);
    return a == b ? T(0.5) * g : larger;
  }
  template <class T> static constexpr T grad_b(T g, T a, T b) { return grad_a(g, b, a); }
};

struct Minimum {
  static constexpr const char* name = "minimum";
  static constexpr bool passes_a = false, passes_b = false;
  template <class T> static constexpr T value(T a, T b) { return a < b || a != a ? a : b; }
  template <class T> static constexpr T grad_a(T g, T a, T b) { return Maximum::grad_a(g, b, a); }
  template <class T> static constexpr T grad_b(T g, T a, T b) { return Maximum::grad_a(g, a, b); }
};

// clang-format on

/// Every binary op; kernels instantiate themselves with it.
#define LIMBECK_BINARY_OPS(X) X(Add) X(Sub) X(Mul) X(Div) X(Maximum) X(Minimum)

}  // namespace limbeck::ops
