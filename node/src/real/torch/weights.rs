//! Weights on a device, each in the form that its products take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Kind, TchError, Tensor};

use super::groups::{self, GROUP, Groups};
use super::{TorchOptions, library, said};
use crate::real::arch::{Device, Stored};
use crate::real::formats::dequantise;
use crate::real::kernels::Precision;
use crate::real::pool::Pool;
use crate::real::weights::LoadError;

/// A device of libtorch, and how it computes.
#[derive(Clone)]
pub struct Torch {
    pub(super) device: tch::Device,
    pub(super) precision: Precision,
    /// Whether it multiplies with 4-bit groups: GPUs before Ampere do not.
    has_groups: bool,
    pub(super) pool: Arc<Pool>,
    /// Memory that weights take, bytes.
    pub(super) bytes: Arc<AtomicU64>,
}

/// A matrix with its bias.
pub struct Linear {
    pub(super) rows: usize,
    pub(super) form: Form,
    pub(super) bias: Option<Tensor>,
}

/// How a matrix lies in memory.
pub(super) enum Form {
    /// `[rows][cols]` of floats.
    Dense(Tensor),
    /// Packed 4-bit codes and their scales; the input stands `times` times side by side.
    Groups { packed: Tensor, scales_and_zeros: Tensor, times: usize },
}

impl Torch {
    /// # Errors
    /// [`LoadError::Device`] where the device is not there.
    pub(super) fn open(options: &TorchOptions) -> Result<Self, LoadError> {
        let device = match options.device.chosen() {
            super::Device::Cuda(number) if number >= library::cuda_devices() => {
                let found = library::cuda_devices();
                let why = library::why_no_cuda().unwrap_or_else(|| format!("there are {found} GPUs"));
                return Err(LoadError::Device { why: format!("no cuda:{number}: {why}") });
            }
            super::Device::Cuda(number) => tch::Device::Cuda(number),
            _ => tch::Device::Cpu,
        };
        let threads = if options.threads == 0 { Pool::default_threads() } else { options.threads };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        let pool = Arc::new(Pool::new(threads));
        let mut torch =
            Self { device, precision: options.precision, has_groups: true, pool, bytes: Arc::default() };
        torch.has_groups = torch.multiplies_groups().is_ok();
        torch.bytes = Arc::default();
        Ok(torch)
    }

    /// What activations are between products.
    pub(super) fn kind(&self) -> Kind {
        match self.precision {
            Precision::Quantised => Kind::BFloat16,
            Precision::F32 => Kind::Float,
        }
    }

    /// What the matrix that makes logits is, whose products are compared with each other: more exact than bf16.
    fn head_kind(&self) -> Kind {
        match (self.precision, self.device) {
            (Precision::Quantised, tch::Device::Cuda(_)) => Kind::Half,
            _ => Kind::Float,
        }
    }

    fn count(&self, tensor: &Tensor) {
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Tries a small product.
    fn multiplies_groups(&self) -> Result<(), TchError> {
        let (rows, cols) = (64, 64);
        let groups = Groups {
            codes: vec![8; rows * cols],
            scales_and_zeros: vec![half::bf16::ONE; rows * 4],
            times: 1,
        };
        let form = self.packed(rows, cols, &groups)?;
        let x = Tensor::f_ones([1, cols as i64], (Kind::BFloat16, self.device))?;
        form.multiply(&x, &x)?.f_sum(Kind::Float)?.f_double_value(&[]).map(drop)
    }

    /// Whether the device's products take groups of such a matrix.
    fn fits(&self, rows: usize, cols: usize) -> bool {
        let row_tile = if self.device.is_cuda() { 8 } else { 16 };
        self.precision == Precision::Quantised
            && self.has_groups
            && rows.is_multiple_of(row_tile)
            && cols.is_multiple_of(GROUP)
    }

    fn packed(&self, rows: usize, cols: usize, groups: &Groups) -> Result<Form, TchError> {
        let Groups { codes, scales_and_zeros, times } = groups;
        let (rows, cols) = (rows as i64, (times * cols) as i64);
        let packed = if self.device.is_cuda() {
            // Two codes a byte, the first one's bits above; a tile is 16 columns by as many as fit of 8, 4 and 2.
            let pairs: Vec<u8> = codes.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            let tiles = [8, 4, 2].into_iter().find(|tiles| cols % (16 * tiles) == 0).unwrap_or(2);
            let pairs = Tensor::f_from_slice(&pairs)?.f_view([rows, cols / 2])?.f_to_device(self.device)?;
            pairs.f_internal_convert_weight_to_int4pack(tiles)?
        } else {
            let codes = Tensor::f_from_slice(codes)?.f_view([rows, cols])?.f_to_kind(Kind::Int)?;
            codes.f_internal_convert_weight_to_int4pack_for_cpu(2)?
        };
        let pairs = Tensor::f_from_slice(scales_and_zeros)?.f_view([cols / GROUP as i64, rows, 2])?;
        let scales_and_zeros = pairs.f_to_device(self.device)?;
        self.count(&packed);
        self.count(&scales_and_zeros);
        Ok(Form::Groups { packed, scales_and_zeros, times: *times })
    }

    fn dense(&self, stored: Stored<'_>, kind: Kind) -> Result<Form, LoadError> {
        let Stored { name, kind: format, rows, cols, bytes } = stored;
        let mut values = vec![0.0f32; rows * cols];
        dequantise(format, bytes, &mut values)
            .map_err(|_| LoadError::Type { tensor: name.into(), kind: format })?;
        let tensor = || {
            let tensor = Tensor::f_from_slice(&values)?.f_view([rows as i64, cols as i64])?;
            tensor.f_to_kind(kind)?.f_to_device(self.device)
        };
        let tensor = tensor().map_err(|why| refused(&why))?;
        self.count(&tensor);
        Ok(Form::Dense(tensor))
    }

    fn form(&self, stored: Stored<'_>) -> Result<Form, LoadError> {
        let Stored { name, kind, rows, cols, bytes } = stored;
        if !groups::is_grouped(kind) || !self.fits(rows, cols) {
            return self.dense(stored, self.kind());
        }
        let groups = groups::groups(&self.pool, kind, rows, cols, bytes)
            .map_err(|_| LoadError::Type { tensor: name.into(), kind })?;
        self.packed(rows, cols, &groups).map_err(|why| refused(&why))
    }
}

impl Device for Torch {
    type Linear = Linear;
    type Vector = Tensor;

    fn linear(&self, stored: Stored<'_>, bias: Option<Vec<f32>>) -> Result<Linear, LoadError> {
        let (rows, form) = (stored.rows, self.form(stored)?);
        let to_device = |bias: Vec<f32>| {
            let bias = Tensor::f_from_slice(&bias)?.f_to_kind(self.kind())?;
            bias.f_to_device(self.device)
        };
        let bias = bias.map(to_device).transpose().map_err(|why| refused(&why))?;
        Ok(Linear { rows, form, bias })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Tensor, LoadError> {
        let tensor = Tensor::f_from_slice(&values).and_then(|tensor| tensor.f_to_device(self.device));
        tensor.map_err(|why| refused(&why))
    }

    fn head(&self, stored: Stored<'_>) -> Result<Linear, LoadError> {
        Ok(Linear { rows: stored.rows, form: self.dense(stored, self.head_kind())?, bias: None })
    }
}

impl Linear {
    /// What its input is.
    pub(super) fn kind(&self) -> Result<Kind, TchError> {
        match &self.form {
            Form::Dense(weight) => weight.f_kind(),
            Form::Groups { scales_and_zeros, .. } => scales_and_zeros.f_kind(),
        }
    }
}

impl Form {
    /// `x W^T`, all of the same kind; `doubled` is x twice side by side, where the form asks for it.
    pub(super) fn multiply(&self, x: &Tensor, doubled: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Form::Dense(weight) => x.f_linear(weight, None::<&Tensor>),
            Form::Groups { packed, scales_and_zeros, times } => {
                let x = if *times == 2 { doubled } else { x };
                if x.device().is_cuda() {
                    x.f_internal_weight_int4pack_mm(packed, GROUP as i64, scales_and_zeros)
                } else {
                    x.f_internal_weight_int4pack_mm_for_cpu(packed, GROUP as i64, scales_and_zeros)
                }
            }
        }
    }

    pub(super) fn is_doubled(&self) -> bool {
        matches!(self, Form::Groups { times: 2, .. })
    }
}

fn refused(why: &TchError) -> LoadError {
    LoadError::Device { why: said(why) }
}
