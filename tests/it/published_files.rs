//! The published weight files, byte for byte as PyTorch wrote them: names and values from every container.

use std::path::Path;

use structtoken::weights::{self, KeyFormat, StateDict, remap_keys};

use crate::golden::published_file;
use crate::hashed::filled;

fn read(name: &str, made: &Path) -> StateDict {
    weights::read(&published_file(name, made)).unwrap()
}

/// The same tensors read from every container, and all of the reference's names known.
#[test]
fn the_reference_reads_alike_from_every_container() {
    let made = tempfile::tempdir().unwrap();
    for (kind, count, foreign) in
        [("cse", 183, &["cse.pth", "cse_legacy.pth"][..]), ("pwe", 127, &["pwe.pth"]), ("sse", 171, &[])]
    {
        let plain = read(&format!("{kind}.safetensors"), made.path());
        let ours = remap_keys(&plain).unwrap();
        assert_eq!((ours.key_format, ours.tensors.len()), (KeyFormat::Mmseg, count));
        for name in ours.tensors.keys() {
            assert!(name.starts_with("decoder.") || name.starts_with("backbone."), "{name}");
            assert!(
                !["ln1", "ln2", "in_proj", "out_proj.", "projection", "ffn.layers"]
                    .iter()
                    .any(|old| name.contains(old)),
                "{name}"
            );
        }
        for block in 0..3 {
            for part in ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"] {
                for leaf in ["weight", "bias"] {
                    assert!(ours.tensors.contains_key(&format!("backbone.blocks.{block}.{part}.{leaf}")));
                }
            }
        }
        for other in foreign.iter().map(|name| read(name, made.path())) {
            let others = remap_keys(&other).unwrap();
            assert_eq!(others.key_format, KeyFormat::Mmseg);
            assert!(ours.tensors == others.tensors, "{kind}");
            assert_eq!(other.wrapper.as_deref(), Some("state_dict"));
        }
    }
}

/// The reference's parameters are a function of their names, so reading them can be checked to the last bit.
#[test]
fn the_reference_reads_to_the_last_bit() {
    let made = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for file in ["cse.safetensors", "cse.pth", "cse_legacy.pth", "pwe.pth", "sse.safetensors"] {
        for (name, tensor) in &read(file, made.path()).tensors {
            assert_eq!(tensor.data, filled(name, &tensor.shape), "{name} of {file}");
            checked += tensor.data.len();
        }
    }
    assert!(checked > 800_000, "{checked}");
}
