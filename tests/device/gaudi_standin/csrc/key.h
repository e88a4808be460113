// Which of torch's devices this stands in for: HPU, or what STANDIN names at the build (XPU, PrivateUse1).
#pragma once

#include <ATen/ATen.h>

#ifndef STANDIN
#define STANDIN HPU
#define STANDIN_HPU 1
#endif

namespace standin {

constexpr auto kType = c10::DeviceType::STANDIN;
constexpr auto kKey = c10::DispatchKey::STANDIN;

} // namespace standin
