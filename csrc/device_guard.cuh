// Makes a device current for as long as it lives.
#pragma once

#include <cuda_runtime.h>

namespace fastpose {

// The current device of the calling thread is what torch set; it is the same after the call.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) : error_(cudaGetDevice(&previous_)) {
        if (error_ == cudaSuccess) error_ = cudaSetDevice(device);
    }
    ~DeviceGuard() {
        if (error_ == cudaSuccess) cudaSetDevice(previous_);
    }
    cudaError_t error() const { return error_; }

  private:
    int previous_ = 0;
    cudaError_t error_;
};

}  // namespace fastpose
