// What this is: "save and stop" on SIGTERM, SIGUSR1 (batch systems) and SIGINT (Ctrl-C) while training.
#pragma once

#include <csignal>

namespace limbeck::apps {

/// While alive, the three signals are only remembered; the loop asks between steps. The handlers of before come back at
/// the end. A second Ctrl-C kills the program as usual. Guards nest: a signal stays known until the outermost one ends.
class SignalGuard {
 public:
  SignalGuard() noexcept {
    if (depth_++ == 0) received_ = 0;
    for (int i = 0; i < kCount; ++i) {
      struct sigaction action {};
      action.sa_handler = [](int number) { received_ = number; };
      if (kSignals[i] == SIGINT) action.sa_flags = static_cast<int>(SA_RESETHAND);
      sigaction(kSignals[i], &action, &previous_[i]);
    }
  }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  ~SignalGuard() {
    --depth_;
    for (int i = 0; i < kCount; ++i) sigaction(kSignals[i], &previous_[i], nullptr);
  }
  /// The last signal, or 0.
  [[nodiscard]] int received() const noexcept { return received_; }

 private:
  static constexpr int kCount = 3;
  static constexpr int kSignals[kCount] = {SIGTERM, SIGUSR1, SIGINT};
  static inline volatile std::sig_atomic_t received_ = 0;
  static inline int depth_ = 0;
  struct sigaction previous_[kCount] {};
};

}  // namespace limbeck::apps
