//! Settings of the optimizer, and the groups of parameters that they make.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the optimizer does, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct OptimizerConfig {
    /// Which one.
    #[serde(rename = "type")]
    pub rule: Rule,
    /// Peak learning rate of the backbone.
    pub lr: f64,
    /// The decoder's learning rate over the backbone's.
    pub decoder_lr_mult: f64,
    /// Layer-wise decay of the learning rate (Bao et al. 2022, BEiT; timm's `layer_decay`): each block of the backbone
    /// learns at this fraction of the learning rate of the block after it, the embedding at that of a block before the
    /// first; 1 is none. Of a plain ViT; other backbones learn at one rate.
    pub layer_decay: f64,
    /// AdamW's decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added by AdamW to the root of the second moment.
    pub eps: f64,
    /// SGD's share of the step before in each step.
    pub momentum: f64,
    /// SGD looks ahead by its momentum.
    pub nesterov: bool,
    /// Weight decay: AdamW's is decoupled, SGD's is part of the gradient.
    pub weight_decay: f64,
    /// Parameters whose name ends in one of these and that are not the decoder's do not decay. mmcv takes the longest
    /// matching key, and `decode_head` is longer than `norm`: so in the published runs norms and biases decay, and only
    /// the two tables of the backbone do not.
    pub no_decay: Vec<String>,
    /// Largest global norm of the gradient; none leaves it as it is.
    pub clip_norm: Option<f64>,
}

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019), step for step as `torch.optim.AdamW`.
    #[default]
    AdamW,
    /// Stochastic gradient descent with momentum, step for step as `torch.optim.SGD`.
    Sgd,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rule: Rule::AdamW,
            lr: 2e-5,
            decoder_lr_mult: 8.0,
            layer_decay: 1.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.01,
            no_decay: vec!["cls_token".into(), "pos_embed".into()],
            clip_norm: None,
        }
    }
}

impl OptimizerConfig {
    /// (factor on the learning rate, weight decay) of a parameter of a network whose backbone has `depth` blocks.
    pub fn group(&self, name: &str, depth: usize) -> (f64, f64) {
        let Some(name) = name.strip_prefix("backbone.") else { return (self.decoder_lr_mult, self.weight_decay) };
        let exempt = self.no_decay.iter().any(|end| name.rsplit('.').next() == Some(end));
        // Only a plain transformer's blocks are told apart.
        if depth == 0 {
            return (1.0, if exempt { 0.0 } else { self.weight_decay });
        }
        // Layers above this one; what comes after the blocks, their norm, has none.
        let above = match block(name) {
            Some(index) => depth.saturating_sub(index),
            None if name.starts_with("norm.") => 0,
            None => depth + 1,
        };
        (self.layer_decay.powi(above as i32), if exempt { 0.0 } else { self.weight_decay })
    }

    /// Refuses values that cannot work, naming the key.
    ///
    /// # Errors
    /// A rate, a factor or a limit out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(what));
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) || self.eps.is_nan() || self.eps <= 0.0 {
            return refuse("optimizer.betas must be in [0, 1), and optimizer.eps above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) || (self.nesterov && self.momentum == 0.0) {
            return refuse("optimizer.momentum must be in [0, 1), and above 0 with nesterov");
        }
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return refuse("optimizer.layer_decay must be above 0 and at most 1, which means none");
        }
        if self.clip_norm.is_some_and(|limit| !limit.is_finite() || limit <= 0.0) {
            return refuse("optimizer.clip_norm must be above 0; leave it out not to clip");
        }
        let rates = [self.lr, self.decoder_lr_mult, self.weight_decay];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            return refuse("optimizer.lr, decoder_lr_mult and weight_decay must be finite and not negative");
        }
        Ok(())
    }
}

/// The number of the block that a parameter of the backbone belongs to.
pub(super) fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

impl Rule {
    /// Names of the state tensors of a parameter, as in PyTorch.
    pub fn state_names(self) -> &'static [&'static str] {
        match self {
            Self::AdamW => &["exp_avg", "exp_avg_sq"],
            Self::Sgd => &["momentum_buffer"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_of_the_backbone_are_spared() {
        let config = OptimizerConfig { decoder_lr_mult: 9.0, ..OptimizerConfig::default() };
        assert_eq!(config.group("backbone.pos_embed", 12), (1.0, 0.0));
        assert_eq!(config.group("backbone.blocks.0.norm1.weight", 12), (1.0, 0.01));
        assert_eq!(config.group("decoder.layers.0.ffn1.norm1.bias", 12), (9.0, 0.01));
    }

    /// As a ViT's: norms and biases decay, unless they are named.
    #[test]
    fn convolutional_backbones_decay_alike_and_learn_at_one_rate() {
        let mut config = OptimizerConfig { layer_decay: 0.5, ..OptimizerConfig::default() };
        let names =
            ["ups.0.conv1.norm.bias", "stages.0.blocks.0.norm1.bias", "encoder.layer1.0.bn1.bias", "stem.proj.weight"];
        for name in names {
            assert_eq!(config.group(&format!("backbone.{name}"), 0), (1.0, 0.01));
        }
        config.no_decay = vec!["bias".into()];
        assert_eq!(config.group("backbone.encoder.layer1.0.bn1.bias", 0), (1.0, 0.0));
    }

    #[test]
    fn rates_fall_from_layer_to_layer() {
        let config = OptimizerConfig { layer_decay: 0.5, ..OptimizerConfig::default() };
        let factor = |name: &str| config.group(name, 4).0;
        assert_eq!(factor("decoder.layers.0.weight"), 8.0);
        assert_eq!(factor("backbone.norm.weight"), 1.0);
        assert_eq!(factor("backbone.blocks.3.mlp.fc1.weight"), 0.5);
        assert_eq!(factor("backbone.blocks.0.mlp.fc1.weight"), 0.0625);
        assert_eq!(factor("backbone.patch_embed.proj.weight"), 0.03125);
        assert_eq!(factor("backbone.cls_token"), 0.03125);
    }
}
