#include "core/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/parse_number.h"
#include "core/pickle_names.h"

namespace limbeck {
namespace {

using Kind = PickleValue::Kind;
constexpr std::size_t kMostValues = 500'000;
constexpr std::size_t kFreeValues = 1000;  // however short the pickle is
constexpr std::size_t kMostDims = 64;      // of a tensor; PyTorch's own limit

class Machine {
 public:
  Machine(std::string_view bytes, std::string_view source)
      : bytes_(bytes), source_(source), budget_(std::min(kMostValues, kFreeValues + bytes.size() / 2)) {}

  PickleDocument run() {
    while (document_.root == nullptr) step();
    document_.bytes_read = at_;
    return std::move(document_);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    fail<WeightsError>("pickle", "{}, byte {} of the pickle: {}", source_, at_,
                       fmt::format(text, std::forward<Args>(args)...));
  }

  // --- bytes ---
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_)
      refuse("{} bytes expected, {} left; the file is truncated", count, bytes_.size() - at_);
    const std::string_view out = bytes_.substr(at_, static_cast<std::size_t>(count));
    at_ += static_cast<std::size_t>(count);
    return out;
  }
  template <class T>
  T number() {  // little-endian in every pickle
    const std::string_view raw = take(sizeof(T));
    T value = 0;
    for (std::size_t i = sizeof(T); i-- > 0;) {
      if constexpr (sizeof(T) > 1) value = static_cast<T>(value << 8U);
      value = static_cast<T>(value | static_cast<T>(static_cast<unsigned char>(raw[i])));
    }
    return value;
  }
  std::string_view line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) refuse("a line without end; the file is truncated");
    const std::string_view out = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return out;
  }
  std::int64_t long_of(std::uint64_t count) {  // two's complement, any length
    const std::string_view raw = take(count);
    if (count > 8) {  // only PyTorch's magic number is that long; its low 64 bits identify it
      std::uint64_t low = 0;
      for (std::size_t i = 8; i-- > 0;) low = (low << 8U) | static_cast<unsigned char>(raw[i]);
      return static_cast<std::int64_t>(low);
    }
    std::uint64_t value = count > 0 && (static_cast<unsigned char>(raw.back()) & 0x80U) != 0 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = raw.size(); i-- > 0;) value = (value << 8U) | static_cast<unsigned char>(raw[i]);
    return static_cast<std::int64_t>(value);
  }
  std::int64_t decimal(std::string_view text) const {
    if (!text.empty() && text.back() == 'L') text.remove_suffix(1);
    const auto value = parse_number<std::int64_t>(text);
    if (!value) refuse("'{}' is no integer", text.substr(0, 40));
    return *value;
  }

  // --- values, stack, memo ---
  void spend(std::size_t entries) {
    if (entries > budget_) refuse("more values than a weight file of {} bytes needs", bytes_.size());
    budget_ -= entries;
  }
  PickleValue* make(Kind kind) {
    spend(1);
    PickleValue& v = document_.values.emplace_back();
    v.kind = kind;
    return &v;
  }
  void push(PickleValue* v) { stack_.push_back(v); }
  PickleValue* push_new(Kind kind) {
    push(make(kind));
    return stack_.back();
  }
  void push_int(std::int64_t value) { push_new(Kind::kInt)->integer = value; }
  void push_text(std::string_view value) { push_new(Kind::kText)->text = value; }
  void push_line() {  // an integer; also the old spelling of booleans
    const std::string_view text = line();
    if (text == "00" || text == "01") {
      push_bool(text == "01");
    } else {
      push_int(decimal(text));
    }
  }
  void push_float() {  // big-endian
    std::uint64_t bits = 0;
    for (const char c : take(8)) bits = (bits << 8U) | static_cast<unsigned char>(c);
    push_new(Kind::kFloat)->real = std::bit_cast<double>(bits);
  }
  /// Values without contents are shared: a long list of them costs no more than its entries.
  void push_none() {
    if (none_ == nullptr) none_ = make(Kind::kNone);
    push(none_);
  }
  void push_bool(bool value) {
    PickleValue*& shared = booleans_[value ? 1 : 0];
    if (shared == nullptr) {
      shared = make(Kind::kBool);
      shared->boolean = value;
    }
    push(shared);
  }
  void push_mark() {
    if (mark_ == nullptr) mark_ = make(Kind::kMark);
    push(mark_);
  }
  PickleValue* top() const {
    if (stack_.empty()) refuse("the stack is empty");
    return stack_.back();
  }
  PickleValue* pop() {
    PickleValue* v = top();
    stack_.pop_back();
    return v;
  }
  PickleValue* pop(Kind kind, const char* what) {
    PickleValue* v = pop();
    if (v->kind != kind) refuse("expected {}", what);
    return v;
  }
  std::vector<PickleValue*> pop_to_mark() {
    const auto mark =
        std::find_if(stack_.rbegin(), stack_.rend(), [](const PickleValue* v) { return v->kind == Kind::kMark; });
    if (mark == stack_.rend()) refuse("no mark on the stack");
    std::vector<PickleValue*> out(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return out;
  }
  void collect(Kind kind) {
    auto items = pop_to_mark();
    push_new(kind)->items = std::move(items);
  }
  void collect_tuple(std::size_t count) {
    std::vector<PickleValue*> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_new(Kind::kTuple)->items = std::move(items);
  }
  void collect_dictionary() {
    const auto items = pop_to_mark();
    push_new(Kind::kDict);
    set_items(items);
  }
  void append() {
    PickleValue* item = pop();
    container(Kind::kList, "a list")->items.push_back(item);
  }
  void extend() {
    const auto items = pop_to_mark();
    auto& list = container(Kind::kList, "a list")->items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_item() {
    PickleValue* value = pop();
    PickleValue* key = pop();
    set_items({key, value});
  }
  void remember(std::uint64_t key) { memo_[key] = top(); }
  void recall(std::uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) refuse("memo {} was never written", key);
    push(found->second);
  }
  PickleValue* container(Kind kind, const char* what) const {
    PickleValue* v = top();
    if (v->kind != kind) refuse("expected {}", what);
    return v;
  }
  void set_items(const std::vector<PickleValue*>& list) {
    if (list.size() % 2 != 0) refuse("a dictionary with a key but no value");
    PickleValue* dict = container(Kind::kDict, "a dictionary");
    for (std::size_t i = 0; i < list.size(); i += 2) dict->pairs.emplace_back(list[i], list[i + 1]);
  }

  // --- names and calls ---
  void push_global(std::string_view module, std::string_view name) {
    const PickleName* known = find_pickle_name(std::string(module) + " " + std::string(name));
    if (known == nullptr) {
      refuse(
          "it wants '{}.{}', which is not a tensor or a plain value; limbeck runs no code from weight files. Save the plain "
          "dictionary in Python: torch.save(model.state_dict(), file)",
          module.substr(0, 80), name.substr(0, 80));
    }
    push_new(Kind::kGlobal)->text = known->name;
  }

  void line_global() {
    const std::string_view module = line();
    push_global(module, line());
  }
  void stack_global() {
    const PickleValue* name = pop(Kind::kText, "a name");
    const PickleValue* module = pop(Kind::kText, "a module name");
    push_global(module->text, name->text);
  }
  void build() {  // attributes of an OrderedDict (_metadata) are dropped
    static_cast<void>(pop());
    if (top()->kind != Kind::kDict) refuse("attributes are set on something that is no dictionary");
  }

  void reduce() {
    const PickleValue* arguments = pop(Kind::kTuple, "a tuple of arguments");
    const PickleValue* function = pop(Kind::kGlobal, "a class or function to call");
    const PickleCall call = find_pickle_name(function->text)->call;
    switch (call) {
      case PickleCall::kNone:
      case PickleCall::kStorage: refuse("a call of '{}', which is no function", function->text);
      case PickleCall::kDict: call_dict(*arguments); break;
      case PickleCall::kTensor: call_tensor(*arguments); break;
      case PickleCall::kParameter:
        if (arguments->items.empty() || arguments->items[0]->kind != Kind::kTensor)
          refuse("a parameter without a tensor");
        push(arguments->items[0]);
        break;
      case PickleCall::kFirstArgument:
        if (arguments->items.empty()) {
          push_none();
        } else {
          push(arguments->items[0]);
        }
        break;
    }
  }
  void call_dict(const PickleValue& arguments) {
    PickleValue* dict = push_new(Kind::kDict);
    if (arguments.items.empty()) return;
    if (arguments.items[0]->kind != Kind::kList) refuse("OrderedDict(...) of something that is no list of pairs");
    spend(arguments.items[0]->items.size());
    for (const PickleValue* pair : arguments.items[0]->items) {
      if ((pair->kind != Kind::kTuple && pair->kind != Kind::kList) || pair->items.size() != 2)
        refuse("OrderedDict(...) with an entry that is no pair");
      dict->pairs.emplace_back(pair->items[0], pair->items[1]);
    }
  }
  std::vector<std::int64_t> integers(const PickleValue& v, const char* what) const {
    if (v.kind != Kind::kTuple && v.kind != Kind::kList) refuse("a tensor whose {} is no tuple", what);
    if (v.items.size() > kMostDims)
      refuse("a tensor whose {} has {} dimensions, expected at most {}", what, v.items.size(), kMostDims);
    std::vector<std::int64_t> out;
    for (const PickleValue* item : v.items) {
      if (item->kind != Kind::kInt) refuse("a tensor whose {} holds something that is no integer", what);
      out.push_back(item->integer);
    }
    return out;
  }
  void call_tensor(const PickleValue& arguments) {  // (storage, offset, sizes, strides, ...)
    const auto& a = arguments.items;
    if (a.size() < 4 || a[0]->kind != Kind::kStorage || a[1]->kind != Kind::kInt) {
      refuse("a tensor that is not described by (storage, offset, sizes, strides)");
    }
    const PickleStorage& storage = a[0]->tensor->storage;
    push_new(Kind::kTensor)->tensor = std::make_unique<PickleTensor>(
        PickleTensor{storage, a[1]->integer, integers(*a[2], "size"), integers(*a[3], "strides")});
  }
  void
  persistent_id() {  // ('storage', type, key, location, count), and in the older format None: "is no part of another"
    const PickleValue* id = pop(Kind::kTuple, "a persistent id that is a tuple");
    const auto& a = id->items;
    if (a.size() < 5 || a[0]->kind != Kind::kText || a[0]->text != "storage" || a[1]->kind != Kind::kGlobal ||
        a[2]->kind != Kind::kText || a[4]->kind != Kind::kInt) {
      refuse("a persistent id that is not ('storage', type, key, location, count)");
    }
    if (find_pickle_name(a[1]->text)->call != PickleCall::kStorage) refuse("'{}' is no storage type", a[1]->text);
    if (a.size() > 5 && a[5]->kind != Kind::kNone) {
      refuse(
          "storage '{}' is a part of another storage, which PyTorch has not written since 0.4; load and save the file in Python",
          a[2]->text.substr(0, 80));
    }
    push_new(Kind::kStorage)->tensor = std::make_unique<PickleTensor>(
        PickleTensor{{a[1]->text.substr(std::string_view("torch ").size()), a[2]->text, a[4]->integer}, 0, {}, {}});
  }

  void step();

  std::string_view bytes_;
  std::string_view source_;
  std::size_t at_ = 0;
  std::size_t budget_;  // entries that may still be made
  PickleDocument document_;
  PickleValue* none_ = nullptr;
  PickleValue* mark_ = nullptr;
  std::array<PickleValue*, 2> booleans_{};
  std::vector<PickleValue*> stack_;
  std::map<std::uint64_t, PickleValue*> memo_;
};

void Machine::step() {
  const auto opcode = static_cast<unsigned char>(take(1)[0]);
  switch (opcode) {
    // protocol, frame, end
    case 0x80: static_cast<void>(take(1)); break;
    case 0x95: static_cast<void>(take(8)); break;
    case '.': document_.root = pop(); break;
    // constants
    case 'N': push_none(); break;
    case 0x88: push_bool(true); break;
    case 0x89: push_bool(false); break;
    case 'K': push_int(number<std::uint8_t>()); break;                              // BININT1
    case 'M': push_int(number<std::uint16_t>()); break;                             // BININT2
    case 'J': push_int(static_cast<std::int32_t>(number<std::uint32_t>())); break;  // BININT
    case 0x8a: push_int(long_of(number<std::uint8_t>())); break;                    // LONG1
    case 0x8b: push_int(long_of(number<std::uint32_t>())); break;                   // LONG4
    case 'I': push_line(); break;
    case 'L': push_int(decimal(line())); break;
    case 'G': push_float(); break;
    // text and bytes
    case 0x8c: push_text(take(number<std::uint8_t>())); break;   // SHORT_BINUNICODE
    case 'X': push_text(take(number<std::uint32_t>())); break;   // BINUNICODE
    case 0x8d: push_text(take(number<std::uint64_t>())); break;  // BINUNICODE8
    case 'U': push_text(take(number<std::uint8_t>())); break;    // SHORT_BINSTRING
    case 'T': push_text(take(number<std::uint32_t>())); break;   // BINSTRING
    case 'C': push_text(take(number<std::uint8_t>())); break;    // SHORT_BINBYTES
    case 'B': push_text(take(number<std::uint32_t>())); break;   // BINBYTES
    case 'V': push_text(line()); break;
    // containers
    case '(': push_mark(); break;
    case '}': push_new(Kind::kDict); break;
    case ']': push_new(Kind::kList); break;
    case ')': push_new(Kind::kTuple); break;
    case 0x8f: push_new(Kind::kList); break;  // EMPTY_SET
    case 't': collect(Kind::kTuple); break;
    case 'l': collect(Kind::kList); break;
    case 'd': collect_dictionary(); break;
    case 0x85:
    case 0x86:
    case 0x87: collect_tuple(opcode - 0x84U); break;  // TUPLE1 .. TUPLE3
    case 'a': append(); break;
    case 'e':
    case 0x90: extend(); break;  // APPENDS, ADDITEMS
    case 's': set_item(); break;
    case 'u': set_items(pop_to_mark()); break;
    // stack and memo
    case '0': static_cast<void>(pop()); break;
    case '1': static_cast<void>(pop_to_mark()); break;
    case '2': push(top()); break;
    case 'q': remember(number<std::uint8_t>()); break;
    case 'r': remember(number<std::uint32_t>()); break;
    case 'p': remember(static_cast<std::uint64_t>(decimal(line()))); break;
    case 0x94: remember(memo_.size()); break;  // MEMOIZE
    case 'h': recall(number<std::uint8_t>()); break;
    case 'j': recall(number<std::uint32_t>()); break;
    case 'g': recall(static_cast<std::uint64_t>(decimal(line()))); break;
    // names and calls
    case 'c': line_global(); break;
    case 0x93: stack_global(); break;
    case 'R':
    case 0x81: reduce(); break;  // REDUCE, NEWOBJ
    case 'b': build(); break;
    case 'Q': persistent_id(); break;
    default: refuse("opcode 0x{:02x}, which weight files do not need", opcode);
  }
}

}  // namespace

const PickleValue* PickleValue::find(std::string_view key) const noexcept {
  for (const auto& [name, value] : pairs) {
    if (name->kind == Kind::kText && name->text == key) return value;
  }
  return nullptr;
}

PickleDocument load_pickle(std::string_view bytes, std::string_view source) { return Machine(bytes, source).run(); }

}  // namespace limbeck
