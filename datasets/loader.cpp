// One lock, a ring of slots. Workers claim single samples, not batches, so that the first batch is ready as early as
// possible; the slot of batch b is ring[b % capacity]. Batches are numbered through all epochs.
#include "datasets/loader.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/rng.h"

namespace limbeck::datasets {
namespace {

/// A batch in the making.
struct Slot {
  Tensor images, labels;
  std::vector<std::size_t> indices;
  std::vector<std::array<std::int64_t, 2>> sizes;  // of each prepared sample
  std::vector<std::exception_ptr> errors;
  std::int64_t epoch = 0;
  std::size_t remaining = 0;
  bool planned = false;
};

/// The exception in flight, with the sample's name in front and its type kept.
std::exception_ptr named_exception(const std::string& sample, std::size_t index) {
  const std::string prefix = fmt::format("[loader] sample '{}' (index {}): ", sample, index);
  try {
    throw;
  } catch (const DataError& e) {
    return std::make_exception_ptr(DataError(prefix + e.what()));
  } catch (const Error& e) {
    return std::make_exception_ptr(Error(prefix + e.what(), e.exit_code()));
  } catch (const std::exception& e) {
    return std::make_exception_ptr(Error(prefix + e.what()));
  } catch (...) {
    return std::current_exception();
  }
}

void check_options(const LoaderOptions& o, const std::shared_ptr<const Dataset>& dataset) {
  if (!dataset) fail<ConfigError>("loader", "no dataset");
  if (o.batch < 1) fail<ConfigError>("loader", "batch {}, expected 1 or more", o.batch);
  if (o.workers < 0 || o.workers > 256) fail<ConfigError>("loader", "{} workers, expected 0..256", o.workers);
  if (o.prefetch < 1) fail<ConfigError>("loader", "prefetch {}, expected 1 or more", o.prefetch);
  if (o.world < 1 || o.rank < 0 || o.rank >= o.world) {
    fail<ConfigError>("loader", "rank {} of {} processes", o.rank, o.world);
  }
  datasets::check_options(o.transform);
  if (o.bytes && o.transform.pad_zero)
    fail<ConfigError>("loader", "pictures of bytes cannot be padded with the network's zero");
}

}  // namespace

struct Loader::Impl {
  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {  // also when the constructor of the loader gives up between two threads
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    work.notify_all();
    for (auto& t : threads) t.join();
  }

  std::shared_ptr<const Dataset> dataset;
  LoaderOptions options;
  std::int64_t per_epoch = 0;

  std::mutex mutex;
  std::condition_variable work;   // workers: a sample may be claimed, or stop
  std::condition_variable ready;  // consumer: a batch is complete, or no worker is active
  std::vector<Slot> ring;
  std::int64_t consumed = 0;    // number of the batch that next() returns next
  std::int64_t end = 0;         // first batch that is not wanted
  std::int64_t open_batch = 0;  // batch of which samples are being claimed
  std::size_t open_item = 0;
  int active = 0;  // workers preparing a sample
  bool paused = false;
  bool stop = false;
  std::map<std::int64_t, std::vector<std::size_t>> orders;  // of the epochs in use
  std::vector<std::thread> threads;

  [[nodiscard]] std::int64_t capacity() const { return static_cast<std::int64_t>(ring.size()); }
  Slot& slot(std::int64_t batch) { return ring[static_cast<std::size_t>(batch % capacity())]; }

  [[nodiscard]] std::int64_t count_batches() const {
    const auto n = static_cast<std::int64_t>(dataset->size());
    const std::int64_t global = options.batch * options.world;
    if (options.drop_last) return n / global;
    const std::int64_t rest = n % global;
    return n / global + (rest > options.rank * options.batch ? 1 : 0);
  }

  [[nodiscard]] std::vector<std::size_t> order_of(std::int64_t epoch) const {
    std::vector<std::size_t> order(dataset->size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (!options.shuffle) return order;
    constexpr std::uint64_t kOrder = 0x6F72646572U;  // keeps the stream apart from other uses of the epoch
    Generator g(options.seed, mix_stream(static_cast<std::uint64_t>(epoch), kOrder));
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[g.below(i)]);
    return order;
  }

  /// Fills in which samples batch `b` has. Called with the lock held.
  void plan(std::int64_t b) {
    Slot& s = slot(b);
    s = Slot{};
    s.epoch = b / per_epoch;
    orders.erase(orders.begin(), orders.lower_bound(s.epoch - 1));
    auto found = orders.find(s.epoch);
    if (found == orders.end()) found = orders.emplace(s.epoch, order_of(s.epoch)).first;
    const auto& order = found->second;
    const auto n = static_cast<std::int64_t>(order.size());
    const std::int64_t first = (b % per_epoch) * options.batch * options.world + options.rank * options.batch;
    const std::int64_t last = std::min(n, first + options.batch);
    s.indices.assign(order.begin() + first, order.begin() + last);
    s.sizes.resize(s.indices.size());
    s.errors.resize(s.indices.size());
    s.remaining = s.indices.size();
    s.planned = true;
  }

  /// Loads and transforms one sample into its place in the batch. Called without the lock.
  void prepare(Slot& s, std::size_t item) {
    const std::size_t index = s.indices[item];
    std::string name = "?";
    try {
      name = dataset->name(index);
      const Sample sample = dataset->load(index);
      const auto size = output_size(options.transform, sample.image.h, sample.image.w);
      const auto n = static_cast<std::int64_t>(s.indices.size());
      Tensor images;
      Tensor labels;
      {
        const std::lock_guard lock(mutex);
        s.sizes[item] = size;
        if (!s.images.defined()) {
          s.images = Tensor::empty({n, 3, size[0], size[1]}, options.bytes ? DType::kU8 : DType::kF32);
          s.labels = dataset->target() == Target::kImage ? Tensor::empty({n}, DType::kI64)
                                                         : Tensor::empty({n, size[0], size[1]}, DType::kU8);
        }
        images = s.images;
        labels = s.labels;
      }
      if (images.size(2) != size[0] || images.size(3) != size[1]) return;  // next() reports it
      const std::int64_t pixels = size[0] * size[1];
      std::uint8_t* mask = nullptr;
      if (dataset->target() == Target::kImage) {
        labels.data<std::int64_t>()[item] = sample.label;
      } else {
        mask = labels.data<std::uint8_t>() + static_cast<std::int64_t>(item) * pixels;
      }
      const Generator random = augmentation_stream(options.seed, static_cast<std::uint64_t>(s.epoch), index);
      const std::int64_t place = static_cast<std::int64_t>(item) * pixels * 3;
      if (options.bytes) {
        transform_sample(sample, options.transform, random, images.data<std::uint8_t>() + place, mask);
      } else {
        transform_sample(sample, options.transform, random, images.data<float>() + place, mask);
      }
    } catch (...) {
      s.errors[item] = named_exception(name, index);  // each item has its own entry: no lock needed
    }
  }

  [[nodiscard]] bool may_claim() const { return !paused && open_batch < end && open_batch < consumed + capacity(); }

  void run_worker() {
    std::unique_lock lock(mutex);
    for (;;) {
      work.wait(lock, [&] { return stop || may_claim(); });
      if (stop) return;
      if (open_item == 0) plan(open_batch);
      Slot& s = slot(open_batch);
      const std::size_t item = open_item++;
      if (open_item == s.indices.size()) {
        ++open_batch;
        open_item = 0;
      }
      ++active;
      lock.unlock();
      prepare(s, item);
      lock.lock();
      --active;
      if (--s.remaining == 0 || active == 0) ready.notify_all();
    }
  }

  void seek(std::int64_t epoch, std::int64_t position) {
    std::unique_lock lock(mutex);
    paused = true;
    ready.wait(lock, [&] { return active == 0; });
    for (auto& s : ring) s = Slot{};
    consumed = open_batch = epoch * per_epoch + position;
    open_item = 0;
    end = options.endless ? std::numeric_limits<std::int64_t>::max() : (epoch + 1) * per_epoch;
    paused = false;
    work.notify_all();
  }

  /// Samples of one batch must have one size; says which two differ, whatever order they were prepared in.
  void check_sizes(const Slot& s) const {
    for (std::size_t i = 1; i < s.sizes.size(); ++i) {
      if (s.sizes[i] == s.sizes[0]) continue;
      fail<DataError>("loader",
                      "samples of one batch have different sizes: '{}' {}x{}, '{}' {}x{}; set a crop or resize "
                      "size, or use batch 1",
                      dataset->name(s.indices[0]), s.sizes[0][1], s.sizes[0][0], dataset->name(s.indices[i]),
                      s.sizes[i][1], s.sizes[i][0]);
    }
  }
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options) : impl_(std::make_unique<Impl>()) {
  check_options(options, dataset);
  impl_->dataset = std::move(dataset);
  impl_->options = options;
  impl_->per_epoch = impl_->count_batches();
  if (impl_->per_epoch < 1) {
    fail<ConfigError>("loader", "{} samples give no full batch of {}{}; lower the batch size", impl_->dataset->size(),
                      options.batch, options.world > 1 ? fmt::format(" on each of {} processes", options.world) : "");
  }
  impl_->ring.resize(static_cast<std::size_t>(options.workers == 0 ? 1 : options.prefetch + 1));
  impl_->seek(0, 0);
  impl_->threads.reserve(static_cast<std::size_t>(options.workers));
  try {
    for (int i = 0; i < options.workers; ++i) impl_->threads.emplace_back([impl = impl_.get()] { impl->run_worker(); });
  } catch (const std::system_error& e) {
    fail("loader", "worker {} of {} cannot be started: {}; use fewer (data.workers), 0 needs no thread",
         impl_->threads.size() + 1, options.workers, e.code().message());
  }
}

Loader::~Loader() = default;

std::int64_t Loader::batches_per_epoch() const noexcept { return impl_->per_epoch; }
std::vector<std::size_t> Loader::epoch_order(std::int64_t epoch) const { return impl_->order_of(epoch); }
const Dataset& Loader::dataset() const noexcept { return *impl_->dataset; }
const LoaderOptions& Loader::options() const noexcept { return impl_->options; }

void Loader::start(std::int64_t epoch, std::int64_t position) {
  LIMBECK_CHECK(epoch >= 0 && position >= 0 && position <= impl_->per_epoch, "loader",
                "start at batch {} of epoch {}, an epoch has {} batches", position, epoch, impl_->per_epoch);
  impl_->seek(epoch, position);
}

std::optional<Batch> Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  Impl& im = *impl_;
  std::unique_lock lock(im.mutex);
  if (im.consumed >= im.end) return std::nullopt;
  const std::int64_t number = im.consumed;
  Slot& slot = im.slot(number);
  if (im.threads.empty()) {
    im.plan(number);
    lock.unlock();
    for (std::size_t i = 0; i < slot.indices.size(); ++i) im.prepare(slot, i);
    lock.lock();
    im.open_batch = number + 1;
  } else {
    im.ready.wait(lock, [&] { return slot.planned && slot.remaining == 0; });
  }
  const Slot done = std::exchange(slot, Slot{});
  ++im.consumed;
  im.work.notify_all();
  lock.unlock();

  for (const auto& error : done.errors) {
    if (error) std::rethrow_exception(error);
  }
  im.check_sizes(done);
  Batch batch{done.images, done.labels, done.indices, done.epoch, number % im.per_epoch, 0};
  batch.wait_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return batch;
}

}  // namespace limbeck::datasets
