// What the stand-in records: ops since the last graph boundary, recipes seen, memory. Python hears of the rare events.
#pragma once

#include "key.h"

#include <torch/csrc/utils/pybind.h>

#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

namespace standin {

struct Record {
  std::recursive_mutex lock;
  bool lazy = false;
  bool narrow_int64 = false; // int64 values live as int32
  bool no_float64 = false;
  bool recompute = true; // the fused attention's default
  bool capturing = false;
  int64_t ops = 0;
  int64_t pending = 0; // ops since the last graph boundary
  int64_t implicit_h2d = 0;
  uint64_t hash = 0; // of the accumulated graph
  std::unordered_set<uint64_t> recipes;
  std::vector<std::string> inputs; // shapes of what the accumulated graph reads and did not make
  std::unordered_set<const void*> made;
  int64_t limit = int64_t{1} << 35;
  int64_t in_use = 0, most = 0, allocs = 0, frees = 0, largest = 0;
  PyObject* listener = nullptr; // called with (kind, name, detail, number); lives as long as the process
};

inline Record& record() {
  static Record* one = new Record();
  return *one;
}

inline void tell(const char* kind, const std::string& name, const std::vector<std::string>& detail, int64_t number) {
  auto& r = record();
  if (r.listener == nullptr || !Py_IsInitialized()) {
    return;
  }
  pybind11::gil_scoped_acquire gil;
  pybind11::handle(r.listener)(kind, name, detail, number);
}

inline void mix(uint64_t& hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2);
}

inline std::string shape_of(const at::Tensor& t) {
  std::string text = c10::toString(t.scalar_type());
  text += "[";
  for (size_t i = 0; i < t.sizes().size(); ++i) {
    text += (i ? "," : "") + std::to_string(t.sizes()[i]);
  }
  return text + "]";
}

// The end of an accumulated graph (lazy only): a compilation when its hash is new.
inline void graph_ends(const std::string& why) {
  auto& r = record();
  std::lock_guard<std::recursive_mutex> guard(r.lock);
  if (r.lazy && r.pending > 0 && r.recipes.insert(r.hash).second) {
    tell("compile", why, r.inputs, r.pending);
  }
  r.pending = 0;
  r.hash = 0;
  r.inputs.clear();
  r.made.clear();
}

inline void host_waits(const std::string& name) {
  TORCH_CHECK(!record().capturing, "cpu fallback is not supported during hpu graph capturing (", name, ")");
  tell("sync", name, {}, 0);
  graph_ends(name);
}

} // namespace standin
