// What this is: a reader of Python pickles that executes nothing. It knows plain values (None, bool, int, float, str, bytes, list,
//   tuple, dict) and turns the few calls that PyTorch's files contain into descriptions; every other name is refused.
// What it is not: a general unpickler. A pickle is a program for a stack machine, and `GLOBAL os system` + `REDUCE` is a
//   program too; that is why the table of known names in pickle_names.cpp is all there is.
// Read next: core/pickle.cpp (one case per opcode), core/torch_file.h (which uses it).
//
// Note [hostile pickles]
//   Values live in the document (no reference cycle can leak, destruction does not recurse), the memo and the stack are
//   bounded by the number of opcodes, lengths are checked against the rest of the file before they are used, and
//   text is kept as views of the file. The number of values is bounded by the length of the pickle, and so is what calls copy
//   from one value into another: the memo lets three bytes name a list of a million entries again and again.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limbeck {

/// Raw memory of tensors: described by the pickle, stored elsewhere in the file.
struct PickleStorage {
  std::string_view type;  ///< "FloatStorage", "HalfStorage", ...
  std::string_view key;
  std::int64_t count = 0;  ///< elements
};

/// What a storage and a tensor are, beside their kind.
struct PickleTensor {
  PickleStorage storage;
  std::int64_t offset = 0;                   ///< first element
  std::vector<std::int64_t> sizes, strides;  ///< in elements; empty for a storage
};

/// A value of the pickle. `kind` says which members count.
struct PickleValue {
  enum class Kind : std::uint8_t {
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kList,
    kTuple,
    kDict,
    kGlobal,
    kStorage,
    kTensor,
    kMark
  };
  Kind kind = Kind::kNone;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string_view text;                                     ///< kText (str and bytes); kGlobal: "module name"
  std::vector<PickleValue*> items;                           ///< kList, kTuple
  std::vector<std::pair<PickleValue*, PickleValue*>> pairs;  ///< kDict, in order
  std::unique_ptr<PickleTensor> tensor;  ///< kStorage, kTensor; apart, because most values are small

  /// The value under the text key `key` of a dictionary, or null.
  [[nodiscard]] const PickleValue* find(std::string_view key) const noexcept;
};

/// What load_pickle() found. Owns all values; text points into the bytes that were read.
struct PickleDocument {
  std::deque<PickleValue> values;
  const PickleValue* root = nullptr;
  std::size_t bytes_read = 0;  ///< a file may hold several pickles after each other
};

/// Reads one pickle (protocols 0 to 5 as far as PyTorch uses them) from the start of `bytes`, which must outlive the
/// document. `source` is named in errors.
/// Throws: WeightsError naming source, byte position and what was found: an unknown opcode, a truncated value, a stack
///         that does not fit, a class or function outside of the known ones (by name), more than 500,000 values or more than
///         one for every two bytes.
/// Source: the opcode descriptions of Python's pickletools module; torch.save of PyTorch 0.3 to 2.x.
[[nodiscard]] PickleDocument load_pickle(std::string_view bytes, std::string_view source);

}  // namespace limbeck
