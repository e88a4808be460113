// The collectives' kernels: tensors are lent to a gloo group on the CPU, whose results are in place when it returns.
#pragma once

#include "autocast.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace standin {

// Stands where torch looks for the device's backend; holds the group that does the work.
struct Hccl final : c10d::Backend {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  Hccl(c10::intrusive_ptr<c10d::ProcessGroup> g) : Backend(g->getRank(), g->getSize()), group(std::move(g)) {}
  const std::string getBackendName() const override { return "hccl"; }
};

// A collective that is over: everything here is synchronous.
struct Over final : c10d::Work {
  c10::intrusive_ptr<c10::ivalue::Future> future;
  std::vector<at::Tensor> tensors;
  explicit Over(std::vector<at::Tensor> made) : tensors(std::move(made)) {
    future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future->markCompleted(c10::IValue(tensors));
    finish();
  }
  bool wait(std::chrono::milliseconds) override { return true; }
  std::vector<at::Tensor> result() override { return tensors; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future; }
};

inline void collect(const c10::IValue& value, std::vector<at::Tensor>& into) {
  if (value.isTensor() && value.toTensor().defined()) {
    into.push_back(value.toTensor());
  } else if (value.isTensorList()) {
    for (const auto& t : value.toTensorVector()) {
      into.push_back(t);
    }
  } else if (value.isList()) {
    for (const c10::IValue& inner : value.toListRef()) {
      collect(inner, into);
    }
  }
}

inline void check_collective(const std::string& name, const std::vector<at::Tensor>& tensors) {
  TORCH_CHECK(name != "c10d::recv_any_source_", "recv from any source is not supported by HCCL process group");
  TORCH_CHECK(name != "c10d::allgather_coalesced_", "allgather_coalesced is not supported by HCCL process group");
  int64_t bytes = 0;
  for (const auto& t : tensors) {
    TORCH_CHECK(t.scalar_type() != at::kDouble && !t.is_complex(), "Unconvertible HCCL type ", t.scalar_type());
    bytes += static_cast<int64_t>(t.nbytes());
  }
  tell("collective", name, {tensors.empty() ? std::string() : shape_of(tensors[0])}, bytes);
}

// Sums of other types are made in float32 and converted back.
inline bool reduces(const std::string& name) {
  return name.find("reduce") != std::string::npos;
}

// The tensors as gloo gets them; `back` says which device tensor each is to be written into.
struct Sent {
  bool as_float;
  Lent lent;
  std::vector<std::pair<at::Tensor, at::Tensor>> back;

  at::Tensor tensor(const at::Tensor& t) {
    if (!on_device(t)) {
      return t;
    }
    auto cpu = lent.on_cpu(t);
    if (as_float && t.scalar_type() != at::kFloat) {
      auto wide = cpu.to(at::kFloat);
      back.emplace_back(cpu, wide);
      return wide;
    }
    if (!cpu.is_contiguous()) {
      auto dense = cpu.contiguous();
      back.emplace_back(cpu, dense);
      return dense;
    }
    return cpu;
  }

  c10::IValue value(const c10::IValue& v, const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
    if (v.isTensor()) {
      return tensor(v.toTensor());
    }
    if (v.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : v.toTensorList()) {
        list.push_back(tensor(t));
      }
      return list;
    }
    if (v.isList() && v.toList().elementType()->kind() == c10::TypeKind::ListType) {
      c10::List<c10::List<at::Tensor>> lists;
      for (const c10::IValue& inner : v.toListRef()) {
        lists.push_back(value(inner, group).toTensorList());
      }
      return lists;
    }
    if (v.isCustomClass() && v.type()->str().find("ProcessGroup") != std::string::npos) {
      return c10::IValue(group);
    }
    return v;
  }
};

inline void collective(const c10::OperatorHandle& op, Stack* stack) {
  const auto& name = op.schema().name();
  Stack args = torch::jit::pop(*stack, op.schema().arguments().size());
  std::vector<at::Tensor> tensors;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  for (const auto& value : args) {
    collect(value, tensors);
    if (!value.isCustomClass()) {
      continue;
    }
    const auto type = value.type()->str();
    if (type.find("ProcessGroup") != std::string::npos) {
      auto backend = value.toCustomClass<c10d::ProcessGroup>()->getBackend(kType);
      group = dynamic_cast<Hccl&>(*backend).group;
    } else if (type.find("ReduceOp") != std::string::npos) {
      auto kind = value.toCustomClass<c10d::ReduceOp>()->op_;
      TORCH_CHECK(
          kind == c10d::ReduceOp::SUM || kind == c10d::ReduceOp::MIN || kind == c10d::ReduceOp::MAX ||
              kind == c10d::ReduceOp::PRODUCT,
          "Unsupported ReduceOp for HCCL process group");
    }
  }
  check_collective(name, tensors);
  graph_ends(name);
  Sent sent{reduces(name)};
  Stack given;
  for (const auto& value : args) {
    given.push_back(sent.value(value, group));
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    pybind11::gil_scoped_release* no_gil = PyGILState_Check() ? new pybind11::gil_scoped_release() : nullptr;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &given);
    given.back().toCustomClass<c10d::Work>()->wait();
    delete no_gil;
  }
  for (auto& [into, from] : sent.back) {
    into.copy_(from);
  }
  const size_t returned = op.schema().returns().size();
  if (returned == 2) { // the tensors that were written, then the work
    stack->push_back(args[0]);
  }
  std::vector<at::Tensor> made;
  collect(args[0], made);
  c10::intrusive_ptr<c10d::Work> work = c10::make_intrusive<Over>(made);
  stack->push_back(c10::IValue(work));
}

inline void register_collectives(torch::Library& m) {
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind("c10d::", 0) != 0 || !c10::Dispatcher::singleton().findSchema(name).has_value()) {
      continue;
    }
    m.impl(name.name.c_str(), torch::CppFunction::makeFromBoxedFunction<&collective>());
  }
}

} // namespace standin
