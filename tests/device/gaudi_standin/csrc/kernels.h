// The kernels of the device's dispatch key: the boxed fallback, and the few that torch wants from the device itself.
#pragma once

#include "fallback.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/List.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <torch/library.h>

#include <functional>

namespace standin {

using Stack = torch::jit::Stack;

// Captured ops, each as what a replay does: the same on the same arguments, into the results that are there.
struct Tape {
  std::vector<std::function<void()>> ops;
};

inline Tape& tape() {
  static auto* one = new Tape();
  return *one;
}

inline bool draws_without_generator(const std::string& name) {
  return name == "aten::native_dropout" || name == "aten::rrelu_with_noise" || name == "aten::rrelu_with_noise_";
}

// Runs `call` with the CPU's default random stream standing where the device's stands.
template <class Call>
void with_device_random(Call call) {
  auto cpu = at::detail::getDefaultCPUGenerator();
  auto& inner = static_cast<Random*>(default_random().unsafeGetGeneratorImpl())->inner;
  auto kept = cpu.get_state();
  cpu.set_state(inner.get_state());
  call();
  inner.set_state(cpu.get_state());
  cpu.set_state(kept);
}

inline c10::IValue lend(const c10::IValue& value, const c10::Argument& arg, Lent& lent) {
  auto one = [&](const at::Tensor& t) { return on_device(t) ? lent.on_cpu(t) : t; };
  if (value.isTensor()) {
    return one(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& t : value.toTensorList()) {
      list.push_back(one(t));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) {
      list.push_back(t.has_value() ? std::optional<at::Tensor>(one(*t)) : std::nullopt);
    }
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == kType) {
    return c10::Device(c10::DeviceType::CPU);
  }
  const bool wants_generator = arg.type()->str().rfind("Generator", 0) == 0;
  if (value.isGenerator() || (value.isNone() && wants_generator)) {
    auto g = value.isGenerator() ? value.toGenerator() : default_random();
    return g.device().type() == kType ? static_cast<Random*>(g.unsafeGetGeneratorImpl())->inner : g;
  }
  return value;
}

inline c10::IValue give_back(const c10::IValue& value, Lent& lent) {
  if (value.isTensor()) {
    return lent.on_device(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& t : value.toTensorList()) {
      list.push_back(lent.on_device(t));
    }
    return list;
  }
  return value;
}

inline void run(const c10::OperatorHandle& op, Stack& args, Lent& lent, Stack& results) {
  const auto& declared = op.schema().arguments();
  for (size_t i = 0; i < args.size(); ++i) {
    results.push_back(lend(args[i], declared[i], lent));
  }
  at::AutoDispatchBelowADInplaceOrView below;
  auto call = [&] { op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &results); };
  if (draws_without_generator(op.schema().name())) {
    with_device_random(call);
  } else {
    call();
  }
}

inline void check_args(const c10::OperatorHandle& op, at::ArrayRef<c10::IValue> args) {
  const auto& name = op.schema().name();
  for (size_t i = 0; i < args.size(); ++i) {
    // A fill value of masked_fill may come from the host.
    if (args[i].isTensor() && name.rfind("aten::masked_fill", 0) != 0) {
      check_mixed(name, i, args[i].toTensor());
    } else if (args[i].isTensorList()) {
      for (const auto& t : args[i].toTensorVector()) {
        check_mixed(name, i, t);
      }
    } else if (args[i].isOptionalTensorList()) {
      for (const std::optional<at::Tensor>& t : args[i].toOptionalTensorList()) {
        check_mixed(name, i, t.value_or(at::Tensor()));
      }
    }
  }
}

inline void refill(const c10::IValue& kept, const c10::IValue& fresh, Lent& lent) {
  if (kept.isTensor() && kept.toTensor().defined()) {
    auto into = lent.on_cpu(kept.toTensor());
    if (into.data_ptr() != fresh.toTensor().data_ptr()) {
      into.copy_(fresh.toTensor());
    }
  } else if (kept.isTensorList()) {
    for (size_t i = 0; i < kept.toTensorVector().size(); ++i) {
      refill(kept.toTensorVector()[i], fresh.toTensorVector()[i], lent);
    }
  }
}

inline void run_again(const c10::OperatorHandle& op, Stack args, const Stack& kept) {
  Lent lent;
  Stack results;
  run(op, args, lent, results);
  for (size_t i = 0; i < results.size(); ++i) {
    refill(kept[i], results[i], lent);
  }
}

inline void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const auto& name = op.schema().name();
  Stack args = torch::jit::pop(*stack, op.schema().arguments().size());
  check_args(op, args);
  if (waits(name, args)) {
    host_waits(name);
  }
  if (lacks_kernel(name)) {
    TORCH_CHECK(!record().capturing, "cpu fallback is not supported during hpu graph capturing (", name, ")");
    tell("fallback", name, {}, 0);
  }
  note_op(op, args);
  Lent lent;
  lent.dense = op.hasTag(at::Tag::pointwise);
  Stack results;
  run(op, args, lent, results);
  lent.take_back();
  for (auto& value : results) {
    value = give_back(value, lent);
    if (value.isTensor() && on_device(value.toTensor())) {
      narrow(value.toTensor());
      std::lock_guard<std::recursive_mutex> guard(record().lock);
      record().made.insert(value.toTensor().storage().unsafeGetStorageImpl());
    }
  }
  if (record().capturing) {
    tape().ops.push_back([op, args, results] { run_again(op, args, results); });
  }
  for (auto& value : results) {
    stack->push_back(std::move(value));
  }
}

inline void replay(const Tape& tape) {
  at::NoGradGuard no_grad;
  for (const auto& again : tape.ops) {
    again();
  }
}

inline at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_index(device.value_or(kDevice).index());
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), memory(), c10::DispatchKeySet(kKey), c10::dtype_or_default(dtype), format);
}

inline at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>) {
  check_index(device.value_or(kDevice).index());
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), memory(), c10::DispatchKeySet(kKey),
      c10::dtype_or_default(dtype));
}

inline void copy_between(const at::Tensor& from, const at::Tensor& into) {
  if (!on_device(into)) {
    host_waits("copy_to_cpu");
  } else if (!on_device(from)) {
    tell("upload", "copy_to_hpu", {shape_of(from)}, 0);
  }
  auto copy = [into, from] {
    Lent lent;
    auto to_cpu = [&](const at::Tensor& t) { return on_device(t) ? lent.on_cpu(t) : t; };
    at::AutoDispatchBelowADInplaceOrView below;
    to_cpu(into).copy_(to_cpu(from));
  };
  copy();
  if (record().capturing) {
    tape().ops.push_back(copy);
  }
  if (on_device(into)) {
    narrow(into);
  }
}

inline void copy_boxed(const c10::OperatorHandle& op, Stack* stack) {
  Stack args = torch::jit::pop(*stack, op.schema().arguments().size());
  auto from = args[0].toTensor(), into = args[1].toTensor();
  if (on_device(into) && on_device(from)) {
    note_op(op, args);
  }
  copy_between(from, into);
  stack->push_back(into);
}

// For the devices that torch's own copy_ has a table of kernels for, instead of asking them for _copy_from.
inline at::Tensor& copy_into(at::Tensor& into, const at::Tensor& from, bool) {
  copy_between(from, into);
  return into;
}

inline void copy_and_resize_boxed(const c10::OperatorHandle&, Stack* stack) {
  auto args = torch::jit::pop(*stack, 2);
  args[1].toTensor().resize_(args[0].toTensor().sizes());
  args[1].toTensor().copy_(args[0].toTensor());
  stack->push_back(args[1]);
}

inline at::Scalar item(const at::Tensor& t) {
  host_waits("item");
  Lent lent;
  at::AutoDispatchBelowADInplaceOrView below;
  return at::_local_scalar_dense(lent.on_cpu(t));
}

} // namespace standin
