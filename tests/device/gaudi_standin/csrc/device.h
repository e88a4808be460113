// The device: an allocator over host memory, one device per process, its own random stream, and torch's hooks for it.
#pragma once

#include "record.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/HPUHooksInterface.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/detail/XPUHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>

namespace standin {

const c10::Device kDevice(kType, 0);

inline void check_room(int64_t bytes) {
  TORCH_CHECK(
      record().in_use + bytes <= record().limit,
      "FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::", bytes, " (", bytes / (1 << 20), ")MB");
}

inline void taken(int64_t bytes) {
  auto& r = record();
  std::lock_guard<std::recursive_mutex> guard(r.lock);
  r.in_use += bytes;
  r.most = std::max(r.most, r.in_use);
  r.largest = std::max(r.largest, bytes);
  r.allocs += 1;
}

inline void given_back(int64_t bytes) {
  auto& r = record();
  std::lock_guard<std::recursive_mutex> guard(r.lock);
  r.in_use -= bytes;
  r.frees += 1;
}

// Keeps what the host allocated (a result of a CPU kernel, a block) as long as a device storage points to it.
struct Held {
  c10::DataPtr block;
  c10::Storage storage;
  int64_t bytes;
};

inline c10::DataPtr device_ptr(void* data, Held* held) {
  taken(held->bytes);
  auto drop = [](void* p) {
    auto* h = static_cast<Held*>(p);
    given_back(h->bytes);
    delete h;
  };
  return c10::DataPtr(data, held, drop, kDevice);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    check_room(static_cast<int64_t>(bytes));
    auto block = c10::GetCPUAllocator()->allocate(bytes);
    void* data = block.get();
    return device_ptr(data, new Held{std::move(block), {}, static_cast<int64_t>(bytes)});
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

inline Memory* memory() {
  static Memory* one = new Memory();
  return one;
}

// Page-locked host memory: ordinary memory whose addresses are remembered.
struct Pinned final : c10::Allocator {
  std::mutex lock;
  std::unordered_set<const void*> blocks;
  static Pinned* one() {
    static auto* pinned = new Pinned();
    return pinned;
  }
  c10::DataPtr allocate(size_t bytes) override {
    auto block = c10::GetCPUAllocator()->allocate(bytes);
    void* data = block.get();
    std::lock_guard<std::mutex> guard(lock);
    blocks.insert(data);
    auto drop = [](void* p) {
      auto* h = static_cast<c10::DataPtr*>(p);
      std::lock_guard<std::mutex> inner(one()->lock);
      one()->blocks.erase(h->get());
      delete h;
    };
    return c10::DataPtr(data, new c10::DataPtr(std::move(block)), drop, c10::Device(c10::DeviceType::CPU));
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

// A stream of random numbers of its own: a CPU generator that only device ops draw from.
struct Random final : c10::GeneratorImpl {
  at::Generator inner;
  explicit Random(at::Generator g) : GeneratorImpl(kDevice, c10::DispatchKeySet(kKey)), inner(std::move(g)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "HPU generator has no offset"); }
  uint64_t get_offset() const override { TORCH_CHECK(false, "HPU generator has no offset"); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.unsafeGetGeneratorImpl()->seed(); }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  static c10::DeviceType device_type() { return kType; }

 private:
  Random* clone_impl() const override { return new Random(inner.clone()); }
};

inline at::Generator new_random() {
  return at::make_generator<Random>(at::detail::createCPUGenerator(c10::default_rng_seed_val));
}

inline const at::Generator& default_random() {
  static auto* one = new at::Generator(new_random());
  return *one;
}

inline void check_index(c10::DeviceIndex index) {
  TORCH_CHECK(index <= 0, "habana active device: ", static_cast<int>(index), " != 0");
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Clock = std::chrono::steady_clock;
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device d) const override {
    check_index(d.index());
    return kDevice;
  }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device d) const override { check_index(d.index()); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getDefaultStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool = false) const override { return getNewStream(kDevice); }
  c10::Stream getNewStream(c10::Device, int = 0) const override {
    static c10::StreamId next = 1;
    return c10::Stream(c10::Stream::UNSAFE, kDevice, next++);
  }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { host_waits("synchronize"); }
  void synchronizeDevice(c10::DeviceIndex) const override { host_waits("synchronize"); }
  void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
    delete static_cast<Clock::time_point*>(*event);
    *event = new Clock::time_point(Clock::now());
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<Clock::time_point*>(event); }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { host_waits("synchronize"); }
  double elapsedTime(void* from, void* to, c10::DeviceIndex) const override {
    auto took = *static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from);
    return std::chrono::duration<double, std::milli>(took).count();
  }
};

inline void check_dtype(c10::ScalarType dtype) {
  TORCH_CHECK(!record().no_float64 || dtype != at::kDouble, "this device has no float64");
}

#define STANDIN_GUARD(type) C10_REGISTER_GUARD_IMPL(type, Guard)
REGISTER_ALLOCATOR(kType, memory())
STANDIN_GUARD(STANDIN)

} // namespace standin

namespace at {

template <class Interface>
struct StandinHooks : Interface {
  void init() const override {}
  bool isBuilt() const { return true; } // these two are virtual since torch 2.7
  bool isAvailable() const { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex index) const override { standin::check_index(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    standin::check_index(index);
    return 0;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchangeDevice(index); }
  Device getDeviceFromPtr(void*) const override { return standin::kDevice; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> guard(standin::Pinned::one()->lock);
    return standin::Pinned::one()->blocks.count(data) > 0;
  }
  Allocator* getPinnedMemoryAllocator() const override { return standin::Pinned::one(); }
  const Generator& getDefaultGenerator(DeviceIndex = -1) const override { return standin::default_random(); }
  Generator getNewGenerator(DeviceIndex = -1) const override { return standin::new_random(); }
};

// Older versions of torch are there as builds with CUDA alone, whose hooks would be a second accelerator: torch raises.
inline const bool without_cuda = [] {
  new (const_cast<CUDAHooksInterface*>(&detail::getCUDAHooks())) CUDAHooksInterface();
  return true;
}();

#ifdef STANDIN_HPU
// torch looks up this very name.
struct HPUHooks final : StandinHooks<HPUHooksInterface> {
  explicit HPUHooks(HPUHooksArgs) {}
  bool hasHPU() const override { return true; }
};
REGISTER_HPU_HOOKS(HPUHooks)
#endif

#ifdef STANDIN_XPU
struct XPUHooks final : StandinHooks<XPUHooksInterface> {
  template <class... Args>
  explicit XPUHooks(const Args&...) {} // torch 2.6 gives it one
  bool hasXPU() const override { return true; }
  DeviceIndex getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  int32_t getGlobalIdxFromDevice(const Device&) const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override { standin::host_waits("synchronize"); }
};
REGISTER_XPU_HOOKS(XPUHooks)
#endif

#ifdef STANDIN_PrivateUse1
struct OtherHooks final : StandinHooks<PrivateUse1HooksInterface> {
  void resizePrivateUse1Bytes(const c10::Storage&, size_t) const override { TORCH_CHECK(false, "not resized here"); }
};
inline const bool registered = [] {
  RegisterPrivateUse1HooksInterface(new OtherHooks());
  return true;
}();
#endif

} // namespace at
