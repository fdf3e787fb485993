//! GPUs of this machine, as CUDA's driver knows them: their names and memory. Needs no part of libtorch, which does not say.

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Its name, such as `NVIDIA GeForce RTX 4090`.
    pub(crate) name: String,
    /// Its memory, bytes.
    pub(crate) total_bytes: u64,
    /// Of it what nobody uses, bytes.
    pub(crate) free_bytes: u64,
}

/// The driver, under the name that its installers give it.
#[cfg(target_os = "linux")]
const DRIVER: &str = "libcuda.so.1";

/// The GPU of that number, in CUDA's order; `None` without a driver or such a GPU.
#[cfg(target_os = "linux")]
pub(crate) fn gpu(number: usize) -> Option<Gpu> {
    driver::gpu(DRIVER, number)
}

/// The GPU of that number: none where CUDA does not run.
#[cfg(not(target_os = "linux"))]
pub(crate) fn gpu(_number: usize) -> Option<Gpu> {
    None
}

#[cfg(target_os = "linux")]
mod driver {
    use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

    use super::Gpu;

    const NOW: c_int = 0x2;
    const NAME_BYTES: usize = 256;

    unsafe extern "C" {
        fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    /// Every call of the driver gives zero where it went well.
    type Status = c_int;
    type Device = c_int;
    type Context = *mut c_void;

    macro_rules! calls {
        ($($field:ident: $name:literal ($($of:ty),*);)*) => {
            /// Calls of the driver, by the names and types of `cuda.h`: the same since CUDA 7.
            struct Driver {
                $($field: unsafe extern "C" fn($($of),*) -> Status,)*
            }

            impl Driver {
                fn open(path: &str) -> Option<Self> {
                    let path = CString::new(path).ok()?;
                    // SAFETY: the path is a string that ends; the library is never closed.
                    let library = unsafe { dlopen(path.as_ptr(), NOW) };
                    if library.is_null() {
                        return None;
                    }
                    $(
                        // SAFETY: the library is open, and the name is a string that ends.
                        let found = unsafe { dlsym(library, $name.as_ptr()) };
                        if found.is_null() {
                            return None;
                        }
                        // SAFETY: the driver's function of that name has this type.
                        let $field = unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($of),*) -> Status>(found)
                        };
                    )*
                    Some(Self { $($field),* })
                }
            }
        };
    }

    calls! {
        init: c"cuInit" (c_uint);
        device: c"cuDeviceGet" (*mut Device, c_int);
        name: c"cuDeviceGetName" (*mut c_char, c_int, Device);
        total: c"cuDeviceTotalMem_v2" (*mut usize, Device);
        retain: c"cuDevicePrimaryCtxRetain" (*mut Context, Device);
        release: c"cuDevicePrimaryCtxRelease_v2" (Device);
        push: c"cuCtxPushCurrent_v2" (Context);
        pop: c"cuCtxPopCurrent_v2" (*mut Context);
        free: c"cuMemGetInfo_v2" (*mut usize, *mut usize);
    }

    impl Driver {
        /// Free memory of the device: what a context of its own is told, the one that libtorch uses too.
        fn free_bytes(&self, device: Device) -> Option<u64> {
            let (mut context, mut free, mut total) = (std::ptr::null_mut(), 0, 0);
            // SAFETY: all point to values that live; what is retained is released, what is pushed is popped.
            unsafe {
                if (self.retain)(&raw mut context, device) != 0 {
                    return None;
                }
                let is_current = (self.push)(context) == 0;
                let is_known = is_current && (self.free)(&raw mut free, &raw mut total) == 0;
                if is_current {
                    (self.pop)(&raw mut context);
                }
                (self.release)(device);
                is_known.then_some(free as u64)
            }
        }
    }

    pub(super) fn gpu(path: &str, number: usize) -> Option<Gpu> {
        let driver = Driver::open(path)?;
        let (mut device, mut total, mut name) = (0, 0, [0; NAME_BYTES]);
        let number = c_int::try_from(number).ok()?;
        // SAFETY: all point to values that live; the name is given its length, and ends within it.
        let name = unsafe {
            let is_known = (driver.init)(0) == 0
                && (driver.device)(&raw mut device, number) == 0
                && (driver.total)(&raw mut total, device) == 0
                && (driver.name)(name.as_mut_ptr(), NAME_BYTES as c_int - 1, device) == 0;
            is_known.then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())?
        };
        let total_bytes = total as u64;
        Some(Gpu { name, total_bytes, free_bytes: driver.free_bytes(device).unwrap_or(total_bytes) })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
    #![allow(clippy::disallowed_methods, reason = "a compiler runs in real time")]

    use std::process::Command;

    use super::*;

    /// A driver of two GPUs, the second of which gives no context.
    const FAKE: &str = r#"
        #include <stdio.h>
        #include <stddef.h>
        static int pushed = 0;
        int cuInit(unsigned flags) { return flags; }
        int cuDeviceGet(int *device, int number) { *device = 40 + number; return number > 1 ? 101 : 0; }
        int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Fake %d", device); return 0; }
        int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)(device - 39) << 34; return 0; }
        int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &pushed; return device == 41 ? 2 : 0; }
        int cuDevicePrimaryCtxRelease_v2(int device) { return pushed; }
        int cuCtxPushCurrent_v2(void *context) { ++*(int *)context; return 0; }
        int cuCtxPopCurrent_v2(void **context) { --pushed; return 0; }
        int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 1000; return pushed == 1 ? 0 : 201; }
    "#;

    #[test]
    fn a_driver_is_asked_as_it_wants_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("fake.c"), folder.path().join("libfake.so"));
        std::fs::write(&source, FAKE).unwrap();
        let built =
            Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
        assert!(built.success());
        let ask = |number| driver::gpu(library.to_str().unwrap(), number);
        let first = Gpu { name: "Fake 40".into(), total_bytes: 1 << 34, free_bytes: 1000 };
        assert_eq!(ask(0), Some(first.clone()));
        assert_eq!(ask(0), Some(first), "what was pushed was popped");
        let second = Gpu { name: "Fake 41".into(), total_bytes: 1 << 35, free_bytes: 1 << 35 };
        assert_eq!(ask(1), Some(second));
        assert_eq!(ask(2), None);
        assert_eq!(ask(usize::MAX), None);
    }

    #[test]
    fn without_a_driver_there_is_no_gpu() {
        assert_eq!(driver::gpu("libnobody.so.1", 0), None);
        assert_eq!(driver::gpu("libc.so.6", 0), None, "another library is no driver");
    }
}
