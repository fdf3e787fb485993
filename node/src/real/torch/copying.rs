//! How fast a device's memory is, for figures that stand beside it.

use tch::{Kind, TchError, Tensor};

use super::{Device, library, said};
use crate::real::profile::Stopwatch;
use crate::real::weights::LoadError;

/// Copies that are timed together.
const COPIES: u32 = 20;

/// How often; the fastest counts, as nothing makes a copy faster than the memory is.
const RUNS: usize = 5;

/// Bytes a second that are read and written when `bytes` are copied from one place of the device to another.
///
/// # Errors
/// [`LoadError::Device`]: no such device, or no memory.
pub fn copy_bytes_per_s(device: Device, bytes: usize) -> Result<f64, LoadError> {
    let devices = library::cuda_devices();
    let device = match device.chosen() {
        Device::Cuda(number) if number < devices => tch::Device::Cuda(number),
        Device::Cuda(number) => return Err(LoadError::Device { why: format!("there is no cuda:{number}") }),
        _ => tch::Device::Cpu,
    };
    measured(device, bytes).map_err(|why| LoadError::Device { why: said(&why) })
}

fn measured(device: tch::Device, bytes: usize) -> Result<f64, TchError> {
    let from = Tensor::f_ones([bytes as i64], (Kind::Uint8, device))?;
    let mut to = Tensor::f_zeros([bytes as i64], (Kind::Uint8, device))?;
    let mut copy = |times: u32| {
        (0..times).try_for_each(|_| to.f_copy_(&from))?;
        // Waits for the device.
        to.f_narrow(0, 0, 1)?.f_to_device(tch::Device::Cpu).map(drop)
    };
    copy(1)?;
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let clock = Stopwatch::start();
        copy(COPIES)?;
        fastest = fastest.min(clock.seconds());
    }
    Ok(2.0 * f64::from(COPIES) * bytes as f64 / fastest)
}
