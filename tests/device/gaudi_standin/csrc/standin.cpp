// A software stand-in of an accelerator on one of torch's keys. It computes on the CPU and records what a program asks.
#include "hccl.h"

namespace standin {

// Ops whose CPU kernel would do the wrong thing with another device's storage or arguments.
static bool own_kernel(const std::string& name) {
  static const std::unordered_set<std::string> names{
      "aten::empty.memory_format", "aten::empty_strided", "aten::_copy_from", "aten::_copy_from_and_resize",
      "aten::_local_scalar_dense", "aten::resize_", "aten::set_.source_Storage_storage_offset", "aten::set_.source_Storage",
      "aten::set_.source_Tensor", "aten::set_", "aten::is_pinned", "aten::_pin_memory", "aten::record_stream",
      "aten::copy_", "aten::_to_copy", "aten::_foreach_copy_", "aten::from_file", "aten::is_set_to"};
  return names.count(name) > 0;
}

// Every op with a kernel for the CPU: without this, those with a composite kernel would decompose, and check devices.
static void register_ops(torch::Library& m) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const std::string full = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
    auto op = dispatcher.findSchema(name);
    if (name.name.rfind("aten::", 0) != 0 || !op.has_value() || own_kernel(full)) {
      continue;
    }
    const bool foreach = name.name.rfind("aten::_foreach_", 0) == 0 && name.name != "aten::_foreach_copy_";
    if (foreach || op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
      m.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
    }
  }
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
#ifdef STANDIN_XPU
  m.impl("copy_", &copy_into);
#endif
  m.impl("_copy_from", torch::CppFunction::makeFromBoxedFunction<&copy_boxed>());
  m.impl("_copy_from_and_resize", torch::CppFunction::makeFromBoxedFunction<&copy_and_resize_boxed>());
  m.impl("_local_scalar_dense", &item);
  using Resize = const at::Tensor& (*)(const at::Tensor&, at::IntArrayRef, std::optional<at::MemoryFormat>);
  m.impl("resize_", static_cast<Resize>(&at::native::resize_));
  m.impl("set_.source_Storage", static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(&at::native::set_));
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_", [](at::Tensor& t) -> at::Tensor& { return t.set_(at::empty({0}, t.options())); });
  m.impl("record_stream", [](at::Tensor&, c10::Stream) {});
}

static pybind11::dict memory_stats() {
  auto& r = record();
  pybind11::dict d;
  d["Limit"] = r.limit;
  d["InUse"] = r.in_use;
  d["MaxInUse"] = r.most;
  d["NumAllocs"] = r.allocs;
  d["NumFrees"] = r.frees;
  d["ActiveAllocs"] = r.allocs - r.frees;
  d["MaxAllocSize"] = r.largest;
  d["TotalSystemAllocs"] = r.allocs;
  d["TotalSystemFrees"] = r.frees;
  d["TotalActiveAllocs"] = r.allocs - r.frees;
  return d;
}

static pybind11::dict counts() {
  auto& r = record();
  pybind11::dict d;
  d["ops"] = r.ops;
  d["pending"] = r.lazy ? r.pending : 0;
  d["implicit_h2d"] = r.implicit_h2d;
  return d;
}

static c10::intrusive_ptr<c10d::Backend> make_hccl(c10::intrusive_ptr<c10d::ProcessGroup> group) {
  return c10::make_intrusive<Hccl>(std::move(group));
}

} // namespace standin

PYBIND11_MODULE(_standin_C, m) {
  using namespace standin;
  static auto* libraries = new std::vector<torch::Library>();
  auto library = [&](const char* space, c10::DispatchKey key) -> torch::Library& {
    libraries->emplace_back(torch::Library::IMPL, space, key, __FILE__, __LINE__);
    return libraries->back();
  };
  libraries->reserve(8);
  library("_", kKey).fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
  register_ops(library("aten", kKey));
#ifdef STANDIN_HPU // other devices' autocast is torch's own, or none; their collectives are not stood in for
  if (!c10::Dispatcher::singleton().hasBackendFallbackForDispatchKey(c10::DispatchKey::AutocastHPU)) {
    library("_", c10::DispatchKey::AutocastHPU).fallback(torch::CppFunction::makeFallthrough());
  }
  register_autocast(library("aten", c10::DispatchKey::AutocastHPU));
  register_collectives(library("c10d", kKey));
#endif

  m.def("configure", [](bool lazy, bool narrow_int64, bool no_float64, int64_t limit, pybind11::object listener) {
    record().lazy = lazy;
    record().narrow_int64 = narrow_int64;
    record().no_float64 = no_float64;
    record().limit = limit;
    record().listener = listener.release().ptr();
  });
  m.def("counts", &counts);
  m.def("graph_ends", &graph_ends);
  m.def("host_waits", &host_waits);
  m.def("note_graph", [](int64_t ops) { record().pending += ops; });
  m.def("memory_stats", &memory_stats);
  m.def("reset_peak", [] { record().most = record().in_use; });
  m.def("reset_accumulated", [] { record().allocs = record().frees = 0; });
  m.def("default_generator", [] { return default_random(); });
  m.def("make_hccl", &make_hccl);
  m.def("capture_begin", [] {
    TORCH_CHECK(!record().capturing, "an hpu graph is being captured already");
    graph_ends("capture");
    tape().ops.clear();
    record().capturing = true;
  });
  // Built-ins, as the bridge's: Dynamo cannot look into them.
  m.def("recompute_sdp_enabled", [] { return record().recompute; });
  m.def("enable_recompute_sdp", [](bool enabled) { record().recompute = enabled; });
  m.def("capturing", [] { return record().capturing; });
  m.def("capture_end", [] {
    record().capturing = false;
    auto taken = std::make_shared<Tape>(std::move(tape()));
    tape().ops.clear();
    graph_ends("capture");
    return taken;
  });
  pybind11::class_<Tape, std::shared_ptr<Tape>>(m, "Tape")
      .def("replay", [](const Tape& taken) { replay(taken); }, pybind11::call_guard<pybind11::gil_scoped_release>())
      .def("__len__", [](const Tape& taken) { return taken.ops.size(); });
}
