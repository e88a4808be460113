// Every op runs the CPU's kernel on the same memory: device tensors are lent to it as CPU tensors, results come back.
#pragma once

#include "device.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <map>

namespace standin {

inline bool on_device(const at::Tensor& t) {
  return t.defined() && t.device().type() == kType;
}

// The tensors of one call, device and CPU side by side.
struct Lent {
  struct Pair {
    at::Tensor device, cpu;
  };
  std::vector<Pair> pairs;
  std::map<const c10::StorageImpl*, c10::Storage> cpu_of, device_of;
  bool dense = false; // results in row order: what torch's own shape functions say of this device's pointwise ops

  at::Tensor on_cpu(const at::Tensor& t) {
    auto found = cpu_of.find(t.storage().unsafeGetStorageImpl());
    if (found == cpu_of.end()) {
      auto drop = [](void* p) { delete static_cast<c10::Storage*>(p); };
      c10::DataPtr data(
          const_cast<void*>(t.storage().data()), new c10::Storage(t.storage()), drop, c10::Device(c10::DeviceType::CPU));
      c10::Storage made(c10::Storage::use_byte_size_t(), t.storage().nbytes(), std::move(data), c10::GetCPUAllocator(), true);
      device_of.emplace(made.unsafeGetStorageImpl(), t.storage());
      found = cpu_of.emplace(t.storage().unsafeGetStorageImpl(), std::move(made)).first;
    }
    c10::Storage storage = found->second;
    auto cpu = at::detail::make_tensor<c10::TensorImpl>(
        std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
    cpu.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    if (t.unsafeGetTensorImpl()->is_wrapped_number()) {
      cpu.unsafeGetTensorImpl()->set_wrapped_number(true);
    }
    pairs.push_back({t, cpu});
    return cpu;
  }

  at::Tensor on_device(at::Tensor cpu) {
    if (!cpu.defined() || !cpu.is_cpu()) {
      return cpu;
    }
    for (const auto& pair : pairs) {
      if (pair.cpu.is_same(cpu)) {
        return pair.device;
      }
    }
    auto found = device_of.find(cpu.storage().unsafeGetStorageImpl());
    if (found == device_of.end()) {
      check_dtype(cpu.scalar_type());
      cpu = dense ? cpu.contiguous() : cpu;
      check_room(static_cast<int64_t>(cpu.storage().nbytes()));
      auto* held = new Held{{}, cpu.storage(), static_cast<int64_t>(cpu.storage().nbytes())};
      auto data = device_ptr(const_cast<void*>(cpu.storage().data()), held);
      c10::Storage made(c10::Storage::use_byte_size_t(), cpu.storage().nbytes(), std::move(data), memory(), true);
      found = device_of.emplace(cpu.storage().unsafeGetStorageImpl(), std::move(made)).first;
    }
    c10::Storage storage = found->second;
    auto t = at::detail::make_tensor<c10::TensorImpl>(
        std::move(storage), c10::DispatchKeySet(kKey), cpu.dtype());
    t.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
    return t;
  }

  // A kernel may have given an `out` tensor another shape or a larger block.
  void take_back() {
    for (const auto& [device, cpu] : pairs) {
      auto* storage = device.storage().unsafeGetStorageImpl();
      if (cpu.storage().data() != storage->data()) {
        storage->set_data_ptr_noswap(memory()->allocate(cpu.storage().nbytes()));
        storage->set_nbytes(cpu.storage().nbytes());
        std::memcpy(storage->mutable_data(), cpu.storage().data(), cpu.storage().nbytes());
      }
      if (cpu.sizes() != device.sizes() || cpu.strides() != device.strides()) {
        device.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
      }
    }
  }
};

inline void narrow(const at::Tensor& t) {
  if (record().narrow_int64 && t.defined() && t.scalar_type() == at::kLong && t.is_non_overlapping_and_dense()) {
    auto* data = static_cast<int64_t*>(t.unsafeGetTensorImpl()->mutable_data());
    for (int64_t i = 0; i < t.numel(); ++i) {
      data[i] = static_cast<int32_t>(data[i]);
    }
  }
}

// 0-dim CPU tensors are scalars and may mix; any other CPU tensor is an error in eager, an upload in lazy.
inline void check_mixed(const std::string& op, size_t index, const at::Tensor& t) {
  auto& r = record();
  if (!t.defined() || !t.is_cpu() || t.dim() == 0) {
    return;
  }
  TORCH_CHECK(
      r.lazy,
      "Expected all tensors to be on the HPU device, but found at least one input[idx=", index, "] on ",
      c10::DeviceTypeName(t.device().type(), true), " (", op, ")");
  r.implicit_h2d += 1;
  tell("h2d", op, {shape_of(t)}, static_cast<int64_t>(index));
}

inline void note_input(const at::Tensor& t) {
  auto& r = record();
  mix(r.hash, static_cast<uint64_t>(t.scalar_type()));
  for (auto size : t.sizes()) {
    mix(r.hash, static_cast<uint64_t>(size));
  }
  if (r.lazy && on_device(t) && r.made.count(t.storage().unsafeGetStorageImpl()) == 0 && r.inputs.size() < 64) {
    auto text = shape_of(t);
    if (std::find(r.inputs.begin(), r.inputs.end(), text) == r.inputs.end()) {
      r.inputs.push_back(std::move(text));
    }
  }
}

inline void note_op(const c10::OperatorHandle& op, at::ArrayRef<c10::IValue> args) {
  auto& r = record();
  std::lock_guard<std::recursive_mutex> guard(r.lock);
  r.ops += 1;
  r.pending += 1;
  mix(r.hash, std::hash<std::string>()(op.schema().name() + "." + op.schema().overload_name()));
  for (const auto& value : args) {
    if (value.isTensor() && value.toTensor().defined()) {
      note_input(value.toTensor());
    } else if (value.isTensorList()) {
      for (const auto& t : value.toTensorVector()) {
        note_input(t);
      }
    } else if (value.isInt()) {
      mix(r.hash, static_cast<uint64_t>(value.toInt()));
    } else if (value.isBool()) {
      mix(r.hash, value.toBool() ? 3 : 5);
    } else if (value.isIntList()) {
      for (auto i : value.toIntVector()) {
        mix(r.hash, static_cast<uint64_t>(i));
      }
    }
  }
}

inline bool has_bool_index(const c10::IValue& value) {
  if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) {
      if (t.has_value() && t->defined() && (t->scalar_type() == at::kBool || t->scalar_type() == at::kByte)) {
        return true;
      }
    }
  }
  return false;
}

// Results whose size or value the host must know before it can go on.
inline bool waits(const std::string& name, at::ArrayRef<c10::IValue> args) {
  static const std::unordered_set<std::string> names{
      "aten::nonzero", "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_dim",
      "aten::unique_consecutive", "aten::equal", "aten::repeat_interleave", "aten::bincount"};
  if (name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_") {
    return args.size() > 1 && has_bool_index(args[1]);
  }
  return names.count(name) > 0;
}

// Ops that a Gaudi has no kernel for: a few families only, the bridge's own list is not known here.
inline bool lacks_kernel(const std::string& name) {
  for (const char* family : {"aten::linalg_", "aten::_linalg_", "aten::_fft_", "aten::cholesky", "aten::special_"}) {
    if (name.rfind(family, 0) == 0) {
      return true;
    }
  }
  return false;
}

} // namespace standin
