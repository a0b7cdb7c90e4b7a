use super::*;
use std::io::Write;
use std::path::PathBuf;
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

/// The opcodes of a value.
type Code = Vec<u8>;

fn text(value: &str) -> Code {
    [b"X", &(value.len() as u32).to_le_bytes()[..], value.as_bytes()].concat()
}

fn int(value: usize) -> Code {
    [b"\x8a\x08", &(value as u64).to_le_bytes()[..]].concat()
}

fn tuple(items: &[Code]) -> Code {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn dict(entries: &[(&str, Code)]) -> Code {
    let entries: Code = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &entries[..], b"u"].concat()
}

fn call(function: &str, arguments: &[Code]) -> Code {
    [b"c", function.as_bytes(), &tuple(arguments), b"R"].concat()
}

fn tensor(storage: &str, held: usize, shape: &[usize], stride: &[usize]) -> Code {
    let id = tuple(&[text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(storage), text("cpu"), int(held)]);
    let numbers = |list: &[usize]| tuple(&list.iter().copied().map(int).collect::<Vec<_>>());
    let hooks = call("collections\nOrderedDict\n", &[]);
    let arguments = [[id, b"Q".to_vec()].concat(), int(0), numbers(shape), numbers(stride), b"\x89".to_vec(), hooks];
    call("torch._utils\n_rebuild_tensor_v2\n", &arguments)
}

fn pickle(value: &[u8]) -> Code {
    [b"\x80\x02", value, b"."].concat()
}

fn archive(root: &[u8], storages: &[Vec<u8>], method: zip::CompressionMethod) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(method);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&pickle(root)).unwrap();
    for (index, storage) in storages.iter().enumerate() {
        zip.start_file(format!("archive/data/{index}"), options).unwrap();
        zip.write_all(storage).unwrap();
    }
    zip.finish().unwrap();
    (folder, path)
}

fn legacy(root: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let magic = [&b"\x8a\x0a"[..], &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]].concat();
    let keys: Code = (0..storages.len()).flat_map(|index| text(&index.to_string())).collect();
    let keys = [b"](", &keys[..], b"e"].concat();
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    let head = [magic, int(1001), system, root.to_vec(), keys].map(|value| pickle(&value)).concat();
    let counted = storages.iter().flat_map(|bytes| [&(bytes.len() as u64 / 4).to_le_bytes()[..], bytes].concat());
    head.into_iter().chain(counted).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn error_of(path: &Path) -> String {
    let error = super::super::read(path).unwrap_err();
    assert!(error.hint().is_some() && error.to_string().contains("w.pth"), "{error}");
    error.to_string()
}

/// As `torch.save` writes `tensor.to(torch.float8_e4m3fn)`.
#[test]
fn floats_of_8_bits_are_named() {
    let storage = b"ctorch.storage\nUntypedStorage\n".to_vec();
    let id = tuple(&[text("storage"), storage, text("0"), text("cpu"), int(4)]);
    let numbers = |list: &[usize]| tuple(&list.iter().copied().map(int).collect::<Vec<_>>());
    let (hooks, kind) = (call("collections\nOrderedDict\n", &[]), b"ctorch\nfloat8_e4m3fn\n".to_vec());
    let arguments =
        [[id, b"Q".to_vec()].concat(), int(0), numbers(&[2, 2]), numbers(&[2, 1]), b"\x89".to_vec(), hooks, kind];
    let root = dict(&[("norm.bias", call("torch._utils\n_rebuild_tensor_v3\n", &arguments))]);
    let (_folder, path) = archive(&root, &[vec![0; 4]], Stored);
    let said = error_of(&path);
    assert!(said.contains("floats of 8 bits or fewer"), "{said}");
}

#[test]
fn finds_the_weights_inside_and_what_stands_beside_them() {
    let storages = [floats(&[1.0, 2.0, 3.0, 4.0]), floats(&[9.0])];
    let (weight, other) = (|| tensor("0", 4, &[2, 2], &[1, 2]), || tensor("1", 1, &[], &[]));
    let plain = dict(&[("norm.bias", weight())]);
    let meta = dict(&[("CLASSES", tuple(&[text("road"), text("sky")])), ("epoch", int(3))]);
    let mmcv = dict(&[("meta", meta), ("state_dict", plain.clone()), ("optimizer", dict(&[("x", other())]))]);
    let averaged = dict(&[("state_dict", dict(&[("norm.bias", other())])), ("state_dict_ema", plain.clone())]);
    let nested = dict(&[("epoch", int(3)), ("weights", dict(&[("model", plain.clone())]))]);
    let cases = [
        (plain, None),
        (mmcv, Some("state_dict")),
        (averaged, Some("state_dict_ema")),
        (nested, Some("weights.model")),
    ];
    for (root, wrapper) in cases {
        for method in [Stored, Deflated] {
            let (_folder, path) = archive(&root, &storages, method);
            let state = super::super::read(&path).unwrap();
            assert_eq!(
                (state.wrapper.as_deref(), state.format, state.tensors.len()),
                (wrapper, WeightFormat::PytorchZip, 1)
            );
            // The strides say that columns come first.
            assert_eq!(state.tensors["norm.bias"].data, [1.0, 3.0, 2.0, 4.0]);
            if wrapper == Some("state_dict") {
                assert_eq!(
                    (state.metadata["meta.CLASSES"].as_str(), state.metadata["meta.epoch"].as_str()),
                    ("road, sky", "3")
                );
            }
            // The old container lists the storages that are used.
            let used = if matches!(wrapper, Some("state_dict" | "state_dict_ema")) { 2 } else { 1 };
            std::fs::write(&path, legacy(&root, &storages[..used])).unwrap();
            let old = super::super::read(&path).unwrap();
            assert_eq!((old.format, old.tensors), (WeightFormat::PytorchLegacy, state.tensors));
        }
    }
}

#[test]
fn code_in_a_pickle_is_refused_and_never_run() {
    let storages = [floats(&[1.0])];
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("it ran");
    let command = format!("touch '{}'", witness.display());
    for function in ["posix\nsystem\n", "os\nsystem\n", "builtins\neval\n", "subprocess\nPopen\n"] {
        let attack = call(function, &[text(&command)]);
        let roots = [
            dict(&[("norm.bias", tensor("0", 1, &[1], &[1])), ("x", attack.clone())]),
            dict(&[("state_dict", dict(&[("norm.bias", attack.clone())]))]),
            attack,
        ];
        for (root, used) in roots.into_iter().zip([1, 0, 0]) {
            let (_folder, path) = archive(&root, &storages, Stored);
            let text = error_of(&path);
            assert!(text.contains("asks to run") && text.contains(function.split('\n').nth(1).unwrap()), "{text}");
            std::fs::write(&path, legacy(&root, &storages[..used])).unwrap();
            assert!(error_of(&path).contains("asks to run"));
            assert!(!witness.exists());
        }
    }
}

/// As `torch.save` writes a dictionary of NumPy's arrays: the way out is printed with the name and the keys of the
/// file.
#[test]
fn arrays_of_numpy_are_named_with_the_way_out() {
    let array = || {
        let state = call(
            "numpy._core.multiarray\n_reconstruct\n",
            &[b"cnumpy\nndarray\n".to_vec(), tuple(&[int(0)]), text("b")],
        );
        [state, tuple(&[int(1), tuple(&[int(1)]), text("x")]), b"b".to_vec()].concat()
    };
    let weights = || dict(&[("norm.bias", array()), ("norm.weight", array())]);
    for (root, keys) in [(weights(), ""), (dict(&[("epoch", int(3)), ("model", weights())]), "[\"model\"]")] {
        let (_folder, path) = archive(&root, &[], Stored);
        let error = super::super::read(&path).unwrap_err();
        assert!(error.to_string().contains("NumPy arrays"), "{error}");
        let line = format!("numpy.savez(\"weights.npz\", **torch.load(\"w.pth\", weights_only=False){keys})");
        assert!(error.hint().unwrap().ends_with(&line), "{:?}", error.hint());
    }
}

/// What training keeps beside the weights asks for lists and dictionaries, which are data.
#[test]
fn histories_of_optimisers_are_not_taken_for_harm() {
    let weights = || dict(&[("norm.bias", tensor("0", 1, &[1], &[1]))]);
    let beside = [
        call("collections\ndefaultdict\n", &[b"c__builtin__\nlist\n".to_vec()]),
        call("collections\ndefaultdict\n", &[b"cbuiltins\ndict\n".to_vec()]),
        call("builtins\nlist\n", &[]),
        call("collections\nOrderedDict\n", &[]),
        call("collections\ndeque\n", &[]),
        call("__builtin__\nset\n", &[[b"](", &int(3)[..], b"e"].concat()]),
        [b"](", &int(3)[..], b"G@\x00\x00\x00\x00\x00\x00\x00e"].concat(),
    ];
    for history in beside {
        let root = dict(&[("state_dict", weights()), ("optimizer", dict(&[("state", history.clone())]))]);
        let (_folder, path) = archive(&root, &[floats(&[1.0])], Stored);
        let state = super::super::read(&path)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&history)));
        assert_eq!(state.tensors["norm.bias"].data, [1.0]);
    }
}

/// An entry that inflates to more than it says, and a pickle that is almost all repetition.
#[test]
fn entries_that_lie_of_their_size_are_refused() {
    let padded = dict(&[("x", text(&"a".repeat(3 << 20))), ("norm.bias", tensor("0", 1, &[1], &[1]))]);
    let (_folder, path) = archive(&padded, &[floats(&[1.0])], Deflated);
    assert!(std::fs::metadata(&path).unwrap().len() < 30_000);
    assert!(error_of(&path).contains("above the limit"), "a file of a few kB");
    let root = dict(&[("norm.bias", tensor("0", 4000, &[4000], &[1]))]);
    let (_folder, path) = archive(&root, &[vec![0; 16_000]], Deflated);
    let whole = std::fs::read(&path).unwrap();
    let says = 16_000u32.to_le_bytes();
    let mut lying = whole.clone();
    let places: Vec<usize> = (0..whole.len() - 4).filter(|at| whole[*at..*at + 4] == says).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| lying[*at..*at + 4].copy_from_slice(&100u32.to_le_bytes()));
    std::fs::write(&path, lying).unwrap();
    assert!(!error_of(&path).is_empty());
}

#[test]
fn claims_beyond_the_file_are_refused() {
    let view = |held, shape: &[usize], stride: &[usize]| dict(&[("norm.bias", tensor("0", held, shape, stride))]);
    let cases = [
        (view(1, &[2_000_000_000], &[0]), "claim 8000000000 bytes"),
        (view(1, &[1 << 40, 1 << 40], &[0, 0]), "PyTorch checkpoint"),
        (view(1 << 40, &[1 << 40], &[1]), "PyTorch checkpoint"),
        (view(9, &[9], &[1]), "cannot be read"),
        (view(1, &[9], &[1]), "PyTorch checkpoint"),
    ];
    for (root, expected) in cases {
        let (_folder, path) = archive(&root, &[floats(&[1.0])], Stored);
        let text = error_of(&path);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn bombs_are_refused_before_they_inflate() {
    let root = dict(&[("norm.bias", tensor("0", 25_000_000, &[25_000_000], &[1]))]);
    let (_folder, path) = archive(&root, &[vec![0; 100_000_000]], Deflated);
    assert!(error_of(&path).contains("claim to inflate beyond 16 times"));
    let brackets = vec![b']'; 20 << 20];
    let (_folder, path) = archive(&brackets, &[], Deflated);
    assert!(error_of(&path).contains("above the limit"));
    std::fs::write(&path, legacy(&brackets, &[])).unwrap();
    assert!(error_of(&path).contains("above the limit"));
}

#[test]
fn every_truncation_is_an_error() {
    let root = dict(&[("state_dict", dict(&[("norm.bias", tensor("0", 4, &[4], &[1]))]))]);
    let storages = [floats(&[1.0, 2.0, 3.0, 4.0])];
    let (_folder, path) = archive(&root, &storages, Stored);
    for whole in [std::fs::read(&path).unwrap(), legacy(&root, &storages)] {
        std::fs::write(&path, &whole).unwrap();
        assert!(super::super::read(&path).is_ok());
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(super::super::read(&path).is_err(), "{end} of {}", whole.len());
        }
    }
}

/// Whatever one byte becomes, reading ends without a panic.
#[test]
fn flipped_bytes_do_not_panic() {
    let root = dict(&[("state_dict", dict(&[("norm.bias", tensor("0", 4, &[4], &[1]))]))]);
    let storages = [floats(&[1.0, 2.0, 3.0, 4.0])];
    let (_folder, path) = archive(&root, &storages, Stored);
    let mut refused = 0;
    for whole in [std::fs::read(&path).unwrap(), legacy(&root, &storages)] {
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut flipped = whole.clone();
                flipped[at] ^= mask;
                std::fs::write(&path, &flipped).unwrap();
                refused += usize::from(super::super::read(&path).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
}
