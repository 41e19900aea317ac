// Atomic files and folders, checksums, mapping.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <string>

#include "core/file_io.h"
#include "core/tensor.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;
using test::TempDir;
namespace fs = std::filesystem;

TEST_SUITE_BEGIN("file_io");

TEST_CASE("read_file returns all bytes and names file and reason otherwise") {
  const TempDir dir;
  std::string bytes(100'000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 % 256);
  write_file_atomic(dir / "a", bytes);
  CHECK(read_file(dir / "a") == bytes);
  write_file_atomic(dir / "empty", "");
  CHECK(read_file(dir / "empty").empty());
  CHECK(!read_file("/proc/self/status").empty());  // size 0 according to the system
  check_throws<DataError>([&] { static_cast<void>(read_file<DataError>(dir / "none")); },
                          {(dir / "none").string(), "No such file"});
  check_throws<Error>([&] { static_cast<void>(read_file(dir.path())); }, {dir.path().string(), "Is a directory"});
}

TEST_CASE("write_file_atomic replaces, and leaves nothing else in the folder") {
  const TempDir dir;
  write_file_atomic(dir / "a", "one");
  write_file_atomic(dir / "a", "two");
  CHECK(read_file(dir / "a") == "two");
  write_file_quickly(dir / "a", "three");
  CHECK(read_file(dir / "a") == "three");
  CHECK(dir.list() == "a");
  struct stat info {};
  REQUIRE(::stat((dir / "a").c_str(), &info) == 0);
  CHECK((info.st_mode & 0600) == 0600);  // an ordinary file, not mkstemp's private mode
}

TEST_CASE("an AtomicFile without commit leaves the old file") {
  const TempDir dir;
  write_file_atomic(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("half of the n");
  }
  CHECK(read_file(dir / "a") == "old");
  CHECK(dir.list() == "a");
  AtomicFile file(dir / "a");
  file.write("new");
  file.commit();
  check_throws<Error>([&] { file.write("x"); }, {"after it was finished"});
  CHECK(read_file(dir / "a") == "new");
}

TEST_CASE("unwritable targets are refused with path and reason") {
  const TempDir dir;
  check_throws<Error>([&] { write_file_atomic(dir / "none/a", "x"); }, {"none/a", "No such file"});
  check_throws<Error>([&] { write_file_quickly(dir / "none/a", "x"); }, {"none/a", "No such file"});
  check_throws<Error>([&] { write_file_quickly("/dev/null", "x"); }, {"/dev/null", "not a regular file"});
  write_file_atomic(dir / "file", "x");
  check_throws<Error>([&] { write_file_atomic(dir / "file/a", "x"); }, {"file/a", "Not a directory"});
  check_throws<Error>([&] { write_file_atomic(dir.path(), "x"); }, {dir.path().string(), "not a regular file"});
  check_throws<Error>([&] { write_file_atomic("/dev/null", "x"); }, {"/dev/null", "not a regular file"});
  CHECK(dir.list() == "file");
}

TEST_CASE("running out of space in the middle of a write keeps the old file") {
  const TempDir dir;
  write_file_atomic(dir / "a", "old");
  // The limit on file sizes stands in for a full disk. In a child process, because it cannot be raised again.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    int status = 1;
    if (::setrlimit(RLIMIT_FSIZE, &limit) == 0) {
      try {
        write_file_atomic(dir / "a", std::string(50'000, 'x'));
      } catch (const Error& e) {
        const std::string text = e.what();
        status = text.find("/a: File too large") != std::string::npos ? 0 : 2;
      }
    }
    ::_exit(status);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(read_file(dir / "a") == "old");
  CHECK(dir.list() == "a");
}

TEST_CASE("AtomicDirectory appears only on commit") {
  const TempDir dir;
  {
    const AtomicDirectory out(dir / "step_1");
    write_file_atomic(out.path() / "w", "1");
    CHECK(!fs::exists(dir / "step_1"));
    CHECK(out.path().filename().string().rfind("step_1.tmp-", 0) == 0);
  }
  CHECK(dir.list().empty());

  AtomicDirectory out(dir / "step_1/");  // a trailing slash names the same folder
  write_file_atomic(out.path() / "w", "1");
  fs::create_directory(out.path() / "sub");
  write_file_atomic(out.path() / "sub" / "v", "2");
  out.commit();
  CHECK(dir.list() == "step_1");
  CHECK(read_file(dir / "step_1/sub/v") == "2");
  check_throws<Error>([&] { out.commit(); }, {"after it was finished"});
}

TEST_CASE("AtomicDirectory replaces a folder as a whole and refuses a file") {
  const TempDir dir;
  fs::create_directory(dir / "best");
  write_file_atomic(dir / "best/old", "1");
  AtomicDirectory out(dir / "best");
  write_file_atomic(out.path() / "new", "2");
  CHECK(fs::exists(dir / "best/old"));
  out.commit();
  CHECK(!fs::exists(dir / "best/old"));
  CHECK(read_file(dir / "best/new") == "2");
  CHECK(dir.list() == "best");

  write_file_atomic(dir / "file", "x");
  check_throws<Error>([&] { AtomicDirectory(dir / "file"); }, {"file", "a file of that name exists"});
  check_throws<Error>([&] { AtomicDirectory(dir / "none/x"); }, {"none/x", "No such file"});
}

TEST_CASE("two writers of one name do not disturb each other") {
  const TempDir dir;
  AtomicFile a(dir / "x");
  AtomicFile b(dir / "x");
  a.write("aaaa");
  b.write("bb");
  a.commit();
  CHECK(read_file(dir / "x") == "aaaa");
  b.commit();
  CHECK(read_file(dir / "x") == "bb");
  CHECK(dir.list() == "x");
}

TEST_CASE("crc32c") {
  CHECK(crc32c(std::string_view("123456789")) == 0xE3069283U);  // the check value of the CRC catalogue
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAU);          // RFC 3720, B.4
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43U);
  CHECK(crc32c(std::string_view("")) == 0U);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 31 % 251);
  for (const std::size_t cut : {0U, 1U, 7U, 8U, 9U, 500U, 1000U}) {
    CHECK(crc32c(std::string_view(text).substr(cut), crc32c(std::string_view(text).substr(0, cut))) == crc32c(text));
  }
  const TempDir dir;
  const std::string big(3'000'000, 'q');  // more than one piece
  write_file_atomic(dir / "big", big);
  CHECK(crc32c_of_file(dir / "big") == crc32c(big));
  check_throws<Error>([&] { static_cast<void>(crc32c_of_file(dir / "none")); }, {"none", "No such file"});
}

TEST_CASE("MappedFile keeps the mapping alive through a Storage, and writes stay private") {
  const TempDir dir;
  const float values[4] = {1, 2, 3, 4};
  write_file_atomic(dir / "a", std::string_view(reinterpret_cast<const char*>(values), sizeof values));
  Tensor t;
  {
    const auto file = MappedFile::open(dir / "a");
    CHECK(file->size() == sizeof values);
    t = Tensor(make_ref<TensorImpl>(make_ref<Storage>(file->data(), file->size(), file), Shape{4}, Strides{1}, 0,
                                    DType::kF32));
  }
  CHECK(t.to_vector<float>() == std::vector<float>{1, 2, 3, 4});
  t.fill_(9);
  CHECK(t.to_vector<float>() == std::vector<float>{9, 9, 9, 9});
  float first = 0;
  std::ifstream(dir / "a", std::ios::binary).read(reinterpret_cast<char*>(&first), sizeof first);
  CHECK(first == 1);

  write_file_atomic(dir / "empty", "");
  CHECK(MappedFile::open(dir / "empty")->size() == 0);
  check_throws<Error>([&] { static_cast<void>(MappedFile::open(dir.path())); }, {"not a regular file"});
}

TEST_SUITE_END();
