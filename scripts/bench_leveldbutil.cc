// What `leveldbutil dump` does, for Debian, which has LevelDB's library but not its tool: every
// FILE through LevelDB's own DumpFile, and what that makes of it through stdio to standard output.
// Without a FILE it says which LevelDB this is.

#include <cstdio>

#include "leveldb/db.h"
#include "leveldb/dumpfile.h"
#include "leveldb/env.h"

namespace {

class StandardOutput : public leveldb::WritableFile {
 public:
  leveldb::Status Append(const leveldb::Slice& text) override {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return {};
    return leveldb::Status::IOError("standard output");
  }
  leveldb::Status Close() override { return {}; }
  leveldb::Status Flush() override { return {}; }
  leveldb::Status Sync() override { return {}; }
};

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) std::printf("%d.%d\n", leveldb::kMajorVersion, leveldb::kMinorVersion);
  StandardOutput out;
  for (int i = 1; i < count; ++i) {
    const leveldb::Status status = leveldb::DumpFile(leveldb::Env::Default(), arguments[i], &out);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
  }
  return 0;
}
