//! One step on libtorch: [`Ops`] over tensors whose rows belong to many sessions.
//!
//! Nothing here waits for the device but [`Backend::values`], which a step calls once, for logits or for what the next
//! stage gets.

use tch::{Kind, TchError, Tensor};

use super::attention::Layer;
use super::pages::{Pages, Part};
use super::reach::{Reach, reaches};
use super::weights::{Linear, Torch};
use super::{Device, TorchOptions, said};
use crate::real::arch::rope::Pairs;
use crate::real::arch::{Activation, Attention, Ops, Rope};
use crate::real::model::kv::{BLOCK, KvCache, KvShape};
use crate::real::model::{Backend, Limits, Residual, Segment};
use crate::real::weights::LoadError;

/// The bits of an f32's exponent.
const EXPONENT: i64 = 0x7f80_0000;

/// Exponents of rows that are rounded to f16 ([`Residual::F16`]): the largest magnitude becomes 2^14 to 2^15.
const EXPONENT_LEAST: i64 = 64 << 23;
const EXPONENT_ABOVE: i64 = 14 << 23;

/// Half of the last of 11 bits of a mantissa, as f32 stores it.
const HALF_BIT: i64 = 1 << 12;

/// The largest magnitude that does not become infinite when it is rounded to 11 bits.
const LARGEST: i64 = 0x7f7f_ffff - HALF_BIT;

/// Activations: `[tokens][width]`.
pub struct Rows {
    tensor: Tensor,
    width: usize,
}

/// Whose the rows of a step are, and what follows from that.
#[derive(Default)]
pub struct Step {
    segments: Vec<Segment>,
    /// Where each row's keys and values go.
    slots: Option<Tensor>,
    /// Each row's position, f64.
    positions: Option<Tensor>,
    /// `magnitude * e^(i angle)` of each row and pair, for each rotation met.
    turns: Vec<(Rope, Tensor)>,
    /// What rows look at, for each window met.
    reaches: Vec<(Option<usize>, Vec<Reach>)>,
    /// What went wrong first.
    failed: Option<String>,
}

/// The operations of a step, and the caches they work on.
pub struct TorchOps {
    torch: Torch,
    cache: KvCache<Pages>,
    step: Step,
}

impl TorchOps {
    pub(super) fn device(&self) -> Device {
        match self.torch.device {
            tch::Device::Cuda(number) => Device::Cuda(number),
            _ => Device::Cpu,
        }
    }

    pub(super) fn weight_bytes(&self) -> u64 {
        self.torch.bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn threads(&self) -> usize {
        self.torch.pool.threads()
    }

    /// Rows of `width` that `work` makes, or empty ones once something went wrong.
    fn run(&mut self, width: usize, work: impl FnOnce(&mut Self) -> Result<Tensor, TchError>) -> Rows {
        let made = if self.step.failed.is_some() { Ok(Tensor::new()) } else { work(self) };
        let tensor = made.unwrap_or_else(|why| {
            self.step.failed = Some(said(&why));
            Tensor::new()
        });
        Rows { tensor, width }
    }

    fn to_device<T: tch::kind::Element>(&self, values: &[T]) -> Result<Tensor, TchError> {
        Tensor::f_from_slice(values)?.f_to_device(self.torch.device)
    }

    fn in_kind(&self, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        if x.f_kind()? == kind { Ok(x.shallow_clone()) } else { x.f_to_kind(kind) }
    }

    /// Each row's session and position.
    fn places(&self) -> impl Iterator<Item = (&Segment, usize)> {
        let of = |segment: &'_ Segment| segment.start..segment.start + segment.count;
        self.step
            .segments
            .iter()
            .flat_map(move |segment| of(segment).map(move |position| (segment, position)))
    }

    /// Where each row's keys and values go, among all positions of all blocks.
    fn slots(&mut self) -> Result<Tensor, TchError> {
        if let Some(slots) = &self.step.slots {
            return Ok(slots.shallow_clone());
        }
        let slot = |(segment, position): (&Segment, usize)| {
            let block = *self.cache.blocks(segment.session)[position / BLOCK];
            i64::from(block) * BLOCK as i64 + (position % BLOCK) as i64
        };
        let slots: Vec<i64> = self.places().map(slot).collect();
        let slots = self.to_device(&slots)?;
        self.step.slots = Some(slots.shallow_clone());
        Ok(slots)
    }

    fn positions(&mut self) -> Result<Tensor, TchError> {
        if let Some(positions) = &self.step.positions {
            return Ok(positions.shallow_clone());
        }
        let positions: Vec<f64> = self.places().map(|(_, position)| position as f64).collect();
        let positions = self.to_device(&positions)?;
        self.step.positions = Some(positions.shallow_clone());
        Ok(positions)
    }

    /// `[rows][1][pairs]`, complex. Angles are worked out in f64, as on the processor.
    fn turns(&mut self, rope: &Rope) -> Result<Tensor, TchError> {
        if let Some((_, turns)) = self.step.turns.iter().find(|(known, _)| known == rope) {
            return Ok(turns.shallow_clone());
        }
        let frequencies: Vec<f64> = rope.frequencies.iter().copied().map(f64::from).collect();
        let angles = self.positions()?.f_outer(&self.to_device(&frequencies)?)?;
        let part = |turned: Tensor| turned.f_to_kind(Kind::Float)?.f_mul_scalar(f64::from(rope.magnitude));
        let turns = Tensor::f_complex(&part(angles.f_cos()?)?, &part(angles.f_sin()?)?)?.f_unsqueeze(1)?;
        self.step.turns.push((rope.clone(), turns.shallow_clone()));
        Ok(turns)
    }

    fn rotated(&mut self, x: &Rows, head_dim: usize, rope: &Rope) -> Result<Tensor, TchError> {
        let turns = self.turns(rope)?;
        let (pairs, dims) = (rope.frequencies.len() as i64, rope.dims() as i64);
        let (heads, head_dim) = ((x.width / head_dim) as i64, head_dim as i64);
        let x = x.tensor.f_view([-1, heads, head_dim])?;
        // `[rows][heads][pairs][2]` in f32, by one copy.
        let by_pairs = match rope.pairs {
            Pairs::Neighbours => x.f_narrow(2, 0, dims)?.f_unflatten(2, [pairs, 2])?,
            Pairs::Halves => x.f_narrow(2, 0, dims)?.f_unflatten(2, [2, pairs])?.f_transpose(2, 3)?,
        };
        let size = [x.size()[0], heads, pairs, 2];
        let mut copied = Tensor::f_empty(size, (Kind::Float, self.torch.device))?;
        copied.f_copy_(&by_pairs)?;
        let turned = copied.f_view_as_complex()?.f_mul(&turns)?.f_view_as_real()?;
        let turned = match rope.pairs {
            Pairs::Neighbours => turned,
            Pairs::Halves => turned.f_transpose(2, 3)?,
        };
        let out = Tensor::f_empty([x.size()[0], heads, head_dim], (self.torch.kind(), self.torch.device))?;
        let size = turned.size();
        out.f_narrow(2, 0, dims)?.f_unflatten(2, [size[2], size[3]])?.f_copy_(&turned)?;
        if dims < head_dim {
            let rest = x.f_narrow(2, dims, head_dim - dims)?;
            out.f_narrow(2, dims, head_dim - dims)?.f_copy_(&rest)?;
        }
        out.f_flatten(1, 2)
    }

    fn attended(&mut self, spec: &Attention, q: &Rows, k: &Rows, v: &Rows) -> Result<Tensor, TchError> {
        let kind = self.torch.kind();
        let by_head = |rows: &Rows| {
            let heads = (rows.width / spec.head_dim) as i64;
            self.in_kind(&rows.tensor, kind)?.f_view([-1, heads, spec.head_dim as i64])
        };
        let [q, k, v] = [by_head(q)?, by_head(k)?, by_head(v)?];
        let slots = self.slots()?;
        for (part, rows) in [(Part::Keys, &k), (Part::Values, &v)] {
            let _ = self.cache.store.positions(spec.layer, part)?.f_index_copy_(0, &slots, rows)?;
        }
        let known = self.step.reaches.iter().position(|(window, _)| *window == spec.window);
        let known = match known {
            Some(known) => known,
            None => {
                let device = self.torch.device;
                let found = reaches(&self.cache, &self.step.segments, spec.window, kind, device)?;
                self.step.reaches.push((spec.window, found));
                self.step.reaches.len() - 1
            }
        };
        let layer = Layer { spec, q: &q, k: &k, v: &v };
        layer.attend(&self.cache.store, &self.step.reaches[known].1)
    }

    fn products(&mut self, x: &Tensor, weights: &[&Linear]) -> Result<Vec<Tensor>, TchError> {
        let mut kind = self.torch.kind();
        if let [first, ..] = weights {
            kind = first.kind()?;
        }
        // All of a layer's matrices take the same kind; the head stands alone.
        let x = self.in_kind(x, kind)?;
        let doubled = if weights.iter().any(|weight| weight.form.is_doubled()) {
            Tensor::f_cat(&[&x, &x], 1)?
        } else {
            x.shallow_clone()
        };
        let mut outs = Vec::with_capacity(weights.len());
        for weight in weights {
            let mut out = weight.form.multiply(&x, &doubled)?;
            if let Some(bias) = &weight.bias {
                out = out.f_add_(bias)?;
            }
            outs.push(out);
        }
        Ok(outs)
    }
}

impl Ops for TorchOps {
    type Device = Torch;
    type Rows = Rows;

    fn norm(&mut self, x: &Rows, norm: &Tensor, eps: f32) -> Rows {
        self.run(x.width, |ops| {
            let length = norm.size()[0];
            let wide = ops.in_kind(&x.tensor, Kind::Float)?;
            let pieces = wide.f_view([-1, x.width as i64 / length, length])?;
            let out = pieces.f_rms_norm([length], Some(norm), f64::from(eps))?;
            out.f_flatten(1, 2)
        })
    }

    fn linear<const N: usize>(&mut self, x: Rows, weights: [&Linear; N]) -> [Rows; N] {
        let mut outs = Vec::new();
        let _ = self.run(0, |ops| {
            outs = ops.products(&x.tensor, &weights)?;
            Ok(Tensor::new())
        });
        let mut outs = outs.into_iter();
        weights.map(|weight| Rows { tensor: outs.next().unwrap_or_else(Tensor::new), width: weight.rows })
    }

    fn rope(&mut self, x: Rows, head_dim: usize, rope: &Rope) -> Rows {
        self.run(x.width, |ops| ops.rotated(&x, head_dim, rope))
    }

    fn attend(&mut self, attention: &Attention, q: Rows, k: Rows, v: Rows) -> Rows {
        self.run(q.width, |ops| ops.attended(attention, &q, &k, &v))
    }

    fn gated(&mut self, activation: Activation, gate: Rows, up: Rows) -> Rows {
        self.run(gate.width, |_| {
            let mut active = match activation {
                Activation::Silu => gate.tensor.f_silu()?,
                Activation::Gelu => gate.tensor.f_gelu("tanh")?,
            };
            active.f_mul_(&up.tensor)
        })
    }

    fn add(&mut self, x: Rows, y: Rows) -> Rows {
        self.run(x.width, |_| x.tensor.f_add(&y.tensor))
    }
}

impl Backend for TorchOps {
    type Options = TorchOptions;
    type Store = Pages;
    type Paused = Step;

    fn limits(options: &TorchOptions) -> Limits {
        options.limits()
    }

    fn open(options: &TorchOptions) -> Result<Torch, LoadError> {
        Torch::open(options)
    }

    fn new(torch: Torch, shape: KvShape, kv_bytes_max: u64, context_max: usize) -> Result<Self, LoadError> {
        let kind = torch.kind();
        let blocks = KvCache::<Pages>::blocks_in(kv_bytes_max, Pages::block_bytes_of(shape, kind));
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let pages = Pages::new(shape, kind, torch.device, blocks).map_err(|why| LoadError::Device {
            why: format!("no {kv_bytes_max} bytes for keys and values: {}", said(&why)),
        })?;
        let cache = KvCache::new(pages, blocks as usize, context_max);
        Ok(Self { torch, cache, step: Step::default() })
    }

    fn cache(&self) -> &KvCache<Pages> {
        &self.cache
    }

    fn cache_mut(&mut self) -> &mut KvCache<Pages> {
        &mut self.cache
    }

    fn begin(&mut self, segments: Vec<Segment>) {
        self.step = Step { segments, ..Step::default() };
    }

    fn pause(&mut self) -> Step {
        std::mem::take(&mut self.step)
    }

    fn resume(&mut self, paused: Step) {
        self.step = paused;
    }

    fn failure(&mut self) -> Option<String> {
        self.step.failed.clone()
    }

    fn rows_of(&mut self, rows: usize, width: usize, fill: impl FnOnce(&mut [f32])) -> Rows {
        let mut values = vec![0.0; rows * width];
        fill(&mut values);
        self.run(width, |ops| ops.to_device(&values)?.f_view([rows as i64, width as i64]))
    }

    /// Rounds as the processor does, to the bit: see `kernels::rounding`.
    fn round(&mut self, residual: Residual, x: Rows) -> Rows {
        match residual {
            Residual::F32 | Residual::Q8 => x,
            Residual::Bf16 => {
                self.run(x.width, |_| x.tensor.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float))
            }
            Residual::F16 => self.run(x.width, |ops| {
                let largest = x.tensor.f_norm_scalaropt_dim(f64::INFINITY, [1i64], true)?;
                let mut bits = largest.f_view_dtype(Kind::Int)?.f_clamp(EXPONENT_LEAST, LARGEST)?;
                let unit = bits.f_add_scalar_(HALF_BIT - EXPONENT_ABOVE)?.f_bitwise_and(EXPONENT)?;
                let unit = unit.f_view_dtype(Kind::Float)?;
                let halves = Tensor::f_empty(x.tensor.size(), (Kind::Half, ops.torch.device))?;
                x.tensor.f_div_out(&halves, &unit)?.f_mul(&unit)
            }),
        }
    }

    fn pick(&mut self, x: &Rows, rows: &[usize]) -> Rows {
        self.run(x.width, |ops| {
            let is_all =
                rows.len() as i64 == x.tensor.size()[0] && rows.iter().enumerate().all(|(i, row)| i == *row);
            if is_all {
                return Ok(x.tensor.shallow_clone());
            }
            let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            x.tensor.f_index_select(0, &ops.to_device(&rows)?)
        })
    }

    fn soft_cap(&mut self, x: Rows, cap: f32) -> Rows {
        let cap = f64::from(cap);
        self.run(x.width, |_| x.tensor.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap))
    }

    fn likeliest(&mut self, logits: &Rows) -> Option<Vec<u32>> {
        let mut tokens = Vec::new();
        let _ = self.run(0, |_| {
            let (least, most) = (f64::NEG_INFINITY, f64::INFINITY);
            let found = logits.tensor.f_nan_to_num(least, most, least)?.f_argmax(-1, false)?;
            let found = found.f_to_device(tch::Device::Cpu)?;
            let mut ids = vec![0i64; found.numel()];
            found.f_copy_data(&mut ids, found.numel())?;
            tokens = ids.into_iter().map(|id| u32::try_from(id).unwrap_or(0)).collect();
            Ok(Tensor::new())
        });
        Some(tokens)
    }

    fn values(&mut self, x: Rows) -> Vec<f32> {
        let mut values = Vec::new();
        let _ = self.run(x.width, |_| {
            let here = x.tensor.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
            values = vec![0.0; here.numel()];
            here.f_copy_data(&mut values, here.numel())?;
            Ok(Tensor::new())
        });
        values
    }

    fn wait(&mut self, x: Rows) {
        let _ = self.run(0, |ops| {
            if ops.torch.device.is_cuda() {
                x.tensor.f_narrow(0, 0, 1)?.f_to_device(tch::Device::Cpu).map(drop)?;
            }
            Ok(Tensor::new())
        });
    }

    fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        self.torch.pool.each(items, work);
    }
}
