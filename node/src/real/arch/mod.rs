//! The architectures, each written once over [`Ops`]: what runs a layer on a processor knows nothing of models, what
//! describes a model knows nothing of processors.
//!
//! * [`Device`]: where weights go when they are loaded; [`Ops`]: what a step does with them.
//! * `keys`: a model's metadata; [`rope`]: rotary position embeddings.
//! * `parts`: attention and feed-forward blocks that architectures share.
//! * `llama`, `qwen`, `gemma`: the architectures. [`build`] knows them by name.

mod gemma;
mod keys;
mod llama;
mod parts;
mod qwen;
pub mod rope;

use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use self::keys::Keys;
pub use self::rope::Rope;
use super::weights::{LoadError, Weights};

/// A weight matrix as it lies in the file.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// Element type.
    pub kind: GgmlType,
    /// Outputs.
    pub rows: usize,
    /// Inputs, elements of a row.
    pub cols: usize,
    /// `rows` rows of whole blocks.
    pub bytes: &'a [u8],
}

/// Where weights live. Loading a model hands each tensor over once; the file's bytes are let go afterwards.
pub trait Device {
    /// A matrix with its bias.
    type Linear: Send;
    /// A vector of f32.
    type Vector: Send;

    /// Takes a matrix `[rows][cols]` in and, where the layer has one, its bias of `rows` elements.
    ///
    /// # Errors
    /// [`LoadError`] where the device cannot multiply with this element type.
    fn linear(&self, stored: Stored<'_>, bias: Option<Vec<f32>>) -> Result<Self::Linear, LoadError>;

    /// Takes a vector in.
    ///
    /// # Errors
    /// [`LoadError::Device`] where the device has no memory for it.
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector, LoadError>;

    /// Takes the matrix in that makes logits.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    fn head(&self, stored: Stored<'_>) -> Result<Self::Linear, LoadError> {
        self.linear(stored, None)
    }
}

/// The nonlinearity of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU: `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    Gelu,
}

/// How a layer attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// The layer's KV cache, counted from the first layer of the range.
    pub layer: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Positions seen, the query's own included; `None` for all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

/// What a step does. The rows of an activation are the step's tokens; to whom each belongs and where it stands is known
/// to the implementation, not to the architecture. Operations that can work in place take their input by value.
///
/// An operation's value for a row is that row's own: what other rows there are changes nothing on the processor, and
/// elsewhere not more than the order in which a device's libraries add.
pub trait Ops {
    /// Whose weights it works with.
    type Device: Device;
    /// Activations, `[tokens][width]` of f32.
    type Rows;

    /// Normalises pieces of the norm's length (whole rows, or heads) by their root mean square:
    /// `x / sqrt(mean(x^2) + eps) * norm`.
    fn norm(&mut self, x: &Self::Rows, norm: &<Self::Device as Device>::Vector, eps: f32) -> Self::Rows;

    /// `x W^T + bias` for matrices that share an input.
    fn linear<const N: usize>(
        &mut self,
        x: Self::Rows,
        weights: [&<Self::Device as Device>::Linear; N],
    ) -> [Self::Rows; N];

    /// Rotates each head of `head_dim` elements by its token's position.
    fn rope(&mut self, x: Self::Rows, head_dim: usize, rope: &Rope) -> Self::Rows;

    /// Appends `k` and `v` (`[tokens][kv_heads * head_dim]`) to the cache and attends with `q` (`[tokens][heads *
    /// head_dim]`) to all positions up to each token's own.
    fn attend(&mut self, attention: &Attention, q: Self::Rows, k: Self::Rows, v: Self::Rows) -> Self::Rows;

    /// `activation(gate) * up`.
    fn gated(&mut self, activation: Activation, gate: Self::Rows, up: Self::Rows) -> Self::Rows;

    /// `x + y`.
    fn add(&mut self, x: Self::Rows, y: Self::Rows) -> Self::Rows;
}

/// What all of a model's stages must agree on, and its ends need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers of the whole model.
    pub layers: u32,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens the model was trained for, 0 where the file does not say.
    pub context: u32,
    /// The norms' epsilon.
    pub eps: f32,
    /// Embedded rows are multiplied by it.
    pub embedding_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_cap: Option<f32>,
}

/// The layers of a range.
pub trait Network<O: Ops>: Send {
    /// Runs layer `index` (from the range's first) over the residual stream.
    fn layer(&self, ops: &mut O, index: usize, x: O::Rows) -> O::Rows;
}

/// What [`build`] knows, as `general.architecture` names it.
pub const KNOWN: [&str; 4] = ["gemma3", "llama", "qwen2", "qwen3"];

/// The shape of the model in `file`.
///
/// # Errors
/// [`LoadError`] names the key that is missing, of another kind or out of range, or an unknown architecture.
pub fn shape(file: &GgufFile) -> Result<Shape, LoadError> {
    let keys = Keys::new(file)?;
    match keys.architecture() {
        "llama" | "qwen2" | "qwen3" => keys.shape(),
        "gemma3" => gemma::shape(&keys),
        other => Err(unknown(other)),
    }
}

/// Loads the layers of `range` onto `device`.
///
/// # Errors
/// [`LoadError`] names the key or tensor that is missing, of another kind or shape, or an unknown architecture.
pub fn build<O: Ops + 'static>(
    weights: &Weights<'_>,
    device: &O::Device,
    range: LayerRange,
) -> Result<Box<dyn Network<O>>, LoadError> {
    let keys = Keys::new(weights.file())?;
    Ok(match keys.architecture() {
        "llama" => Box::new(llama::load(&keys, weights, device, range)?),
        "qwen2" | "qwen3" => Box::new(qwen::load(&keys, weights, device, range)?),
        "gemma3" => Box::new(gemma::Gemma::load(&keys, weights, device, range)?),
        other => return Err(unknown(other)),
    })
}

fn unknown(name: &str) -> LoadError {
    LoadError::UnknownArchitecture { name: name.chars().take(64).collect(), known: KNOWN.join(", ") }
}
