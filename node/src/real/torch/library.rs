//! CUDA's half of libtorch: a library of its own, which the linker leaves out since nothing names a symbol of it. It
//! registers itself when it is opened, so it is opened before anyone asks for a device.

use std::sync::OnceLock;

use tch::Cuda;

/// What came of opening the library: why not, where it could not be opened.
static OPENED: OnceLock<Option<String>> = OnceLock::new();

/// GPUs that libtorch can use here.
pub fn cuda_devices() -> usize {
    OPENED.get_or_init(open);
    if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
}

/// Why there is no CUDA, in words for people; `None` where there is.
pub fn why_no_cuda() -> Option<String> {
    if cuda_devices() > 0 {
        return None;
    }
    let why = OPENED.get_or_init(open);
    Some(
        why.clone()
            .unwrap_or_else(|| "libtorch has CUDA, but finds no GPU: does nvidia-smi list one?".into()),
    )
}

/// A name to look for where libraries are, and the place that this program was built with.
#[cfg(target_os = "linux")]
fn open() -> Option<String> {
    let name = "libtorch_cuda.so";
    let places =
        [Some(name.to_owned()), option_env!("LIBTORCH").map(|folder| format!("{folder}/lib/{name}"))];
    let mut why = None;
    for place in places.into_iter().flatten() {
        match open_library(&place) {
            Ok(()) => return None,
            Err(said) => why = why.or(Some(said)),
        }
    }
    Some(format!(
        "this PyTorch has no CUDA ({}): docs/libtorch.md says which one has",
        why.unwrap_or_default()
    ))
}

#[cfg(not(target_os = "linux"))]
fn open() -> Option<String> {
    // Elsewhere libtorch links what it has.
    None
}

#[cfg(target_os = "linux")]
fn open_library(path: &str) -> Result<(), String> {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};

    /// Symbols are looked up at once, and seen by all.
    const NOW_GLOBAL: c_int = 0x2 | 0x100;

    unsafe extern "C" {
        fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }

    let path = CString::new(path).map_err(|why| why.to_string())?;
    // SAFETY: the path is a string that ends. Opening runs the library's initialisers, which register CUDA with the
    // libtorch that is already there; it is never closed. What `dlerror` gives lives until the next call on this thread.
    unsafe {
        if !dlopen(path.as_ptr(), NOW_GLOBAL).is_null() {
            return Ok(());
        }
        let why = dlerror();
        if why.is_null() {
            Err("dlopen failed".into())
        } else {
            Err(CStr::from_ptr(why).to_string_lossy().into())
        }
    }
}
