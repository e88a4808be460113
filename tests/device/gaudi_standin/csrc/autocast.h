// Casts under autocast, by the bridge's lists. Priority: lower precision, float32, promote. No cast is cached.
#pragma once

#include "kernels.h"

#include <ATen/autocast_mode.h>

#include <fstream>
#include <iostream>

namespace standin {

using Names = std::unordered_set<std::string>;

inline const Names& first_only() {
  static const Names names{"layer_norm", "group_norm", "instance_norm", "batch_norm"};
  return names;
}

// A file of op names, one a line, replaces a default list; it is read once, when the library is loaded.
inline Names listed(const char* variable, Names defaults) {
  const char* path = std::getenv(variable);
  if (path == nullptr) {
    return defaults;
  }
  std::ifstream file(path);
  if (!file.is_open()) {
    std::cerr << "Failed to open file with ops to autocast: " << path << ". Default list loaded.\n";
    return defaults;
  }
  Names names;
  for (std::string line; std::getline(file, line);) {
    names.insert(line);
  }
  return names;
}

inline c10::IValue cast(const c10::IValue& value, at::ScalarType dtype) {
  auto one = [&](const at::Tensor& t) {
    bool eligible = on_device(t) && t.is_floating_point() && t.scalar_type() != at::kDouble;
    return eligible && t.scalar_type() != dtype ? t.to(dtype) : t;
  };
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
  return value;
}

inline at::ScalarType widest(at::ArrayRef<c10::IValue> args) {
  auto dtype = at::autocast::get_autocast_dtype(kType);
  auto see = [&](const at::Tensor& t) {
    if (on_device(t) && t.scalar_type() == at::kFloat) {
      dtype = at::kFloat;
    }
  };
  for (const auto& value : args) {
    if (value.isTensor()) {
      see(value.toTensor());
    } else if (value.isTensorList()) {
      for (const auto& t : value.toTensorVector()) {
        see(t);
      }
    }
  }
  return dtype;
}

enum class Policy { lower, lower_first, fp32, promote };

template <Policy policy>
void autocast_op(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastHPU);
  auto args = torch::jit::last(*stack, op.schema().arguments().size());
  const size_t begin = stack->size() - args.size();
  const size_t end = policy == Policy::lower_first ? begin + 1 : stack->size();
  const auto dtype = policy == Policy::fp32 ? at::kFloat
      : policy == Policy::promote           ? widest(args)
                                            : at::autocast::get_autocast_dtype(kType);
  for (size_t i = begin; i < end; ++i) {
    (*stack)[i] = cast((*stack)[i], dtype);
  }
  op.callBoxed(stack);
}

// Functional overloads only: an op that writes into an argument keeps that argument's dtype.
inline bool writes(const c10::OperatorHandle& op) {
  for (const auto& arg : op.schema().arguments()) {
    if (arg.alias_info() != nullptr && arg.alias_info()->isWrite()) {
      return true;
    }
  }
  return false;
}

inline void register_autocast(torch::Library& m) {
  const Names lower = listed(
      "PT_HPU_AUTOCAST_LOWER_PRECISION_OPS_LIST",
      {"addmm", "addbmm", "batch_norm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
       "conv_transpose2d", "conv_transpose3d", "dot", "dropout", "feature_dropout", "group_norm", "instance_norm",
       "layer_norm", "leaky_relu", "linear", "matmul", "mean", "mm", "mul", "mv", "softmax", "log_softmax",
       "scaled_dot_product_attention"});
  const Names fp32 = listed(
      "PT_HPU_AUTOCAST_FP32_OPS_LIST",
      {"acos", "addcdiv", "asin", "atan2", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cdist",
       "cosh", "cosine_embedding_loss", "cosine_similarity", "cross_entropy_loss", "dist", "div", "divide", "embedding",
       "embedding_bag", "erfinv", "exp", "expm1", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "log", "log10",
       "log1p", "log2", "logsumexp", "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
       "nll_loss", "pdist", "poisson_nll_loss", "pow", "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss",
       "soft_margin_loss", "softplus", "tan", "topk", "triplet_margin_loss", "truediv", "true_divide"});
  const Names promote{"add", "addcmul", "addcdiv", "cat", "div", "exp", "mul", "pow", "sub", "iadd", "truediv", "stack"};
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    auto op = c10::Dispatcher::singleton().findOp(name);
    if (name.name.rfind("aten::", 0) != 0 || !op.has_value() || !op->hasSchema() || writes(*op)) {
      continue;
    }
    const std::string base = name.name.substr(6);
    const std::string full = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
    auto impl = [&](auto kernel) { m.impl(full.c_str(), std::move(kernel)); };
    if (lower.count(base) > 0 && first_only().count(base) > 0) {
      impl(torch::CppFunction::makeFromBoxedFunction<&autocast_op<Policy::lower_first>>());
    } else if (lower.count(base) > 0) {
      impl(torch::CppFunction::makeFromBoxedFunction<&autocast_op<Policy::lower>>());
    } else if (fp32.count(base) > 0) {
      impl(torch::CppFunction::makeFromBoxedFunction<&autocast_op<Policy::fp32>>());
    } else if (promote.count(base) > 0) {
      impl(torch::CppFunction::makeFromBoxedFunction<&autocast_op<Policy::promote>>());
    }
  }
}

} // namespace standin
