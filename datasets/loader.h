// What this is: batches from a Dataset, prepared by worker threads ahead of the consumer.
// What it is not: processes or shared memory; threads share the address space, so nothing is copied or pickled.
// Read next: loader.cpp (one queue, one lock).
//
// Note [the loader's order]
//   The samples of epoch e are a permutation drawn from (seed, e). The global batch p of an epoch is entries
//   [p * world * batch, (p + 1) * world * batch) of it, and rank r takes the r-th part, so two ranks with batch 2 see
//   what one rank with batch 4 sees. The augmentation of a sample is drawn from (seed, e, index). Hence a batch is a
//   pure function of (seed, epoch, position): worker count, timing and resuming do not change it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/tensor.h"
#include "datasets/dataset.h"
#include "datasets/transforms.h"

namespace limbeck::datasets {

struct LoaderOptions {
  std::int64_t batch = 4;  ///< samples per batch of this process
  int workers = 2;         ///< threads; 0 prepares batches inside next()
  int prefetch = 2;        ///< batches prepared ahead
  bool shuffle = true;     ///< false: dataset order, the same in every epoch
  bool drop_last = true;   ///< leave out the last batch of an epoch if it is not full
  bool endless = true;     ///< false: next() ends with the epoch that start() named
  std::uint64_t seed = 0;
  int rank = 0, world = 1;  ///< this process and the number of processes
  bool bytes = false;       ///< pictures as bytes, for normalise()
  TransformOptions transform;
};

/// Shapes:  images f32, or u8 where LoaderOptions::bytes says so, [N,3,H,W] (channels-last), labels u8 [N,H,W] with kIgnoreId; i64 [N] where whole pictures have a
///          class.
/// Units:   normalised colours; train ids.
struct Batch {
  Tensor images;
  Tensor labels;
  std::vector<std::size_t> indices;  ///< which samples of the dataset
  std::int64_t epoch = 0;
  std::int64_t position = 0;  ///< number of the batch within the epoch
  double wait_seconds = 0;    ///< how long next() had to wait for the workers
};

class Loader {
 public:
  /// Throws: ConfigError for options that make no sense, or when an epoch would have no batch at all; Error when the system starts
  ///   no more threads.
  Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader();

  [[nodiscard]] std::int64_t batches_per_epoch() const noexcept;
  /// The samples of an epoch in order, for all ranks.
  [[nodiscard]] std::vector<std::size_t> epoch_order(std::int64_t epoch) const;

  /// Goes to a batch: the next next() returns it. Resuming a run needs these two numbers.
  /// Calling it is optional: a new loader stands at (0, 0).
  void start(std::int64_t epoch, std::int64_t position = 0);

  /// The next batch; nothing after the last one when the loader is not endless.
  /// Throws: what a worker threw, with the name of the sample in front: DataError for bad files, and when samples of one
  ///   batch have different sizes. The loader goes on with the following batch if called again.
  [[nodiscard]] std::optional<Batch> next();

  [[nodiscard]] const Dataset& dataset() const noexcept;
  [[nodiscard]] const LoaderOptions& options() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limbeck::datasets
