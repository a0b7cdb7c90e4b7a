//! The recipes of `configs/`, which are in the binary: they have their names wherever it runs.

use std::path::Path;

#[rustfmt::skip]
const RECIPES: &[(&str, &str)] = &[
    ("configs/ade20k/eomt_vit-b_512.toml", include_str!("../../configs/ade20k/eomt_vit-b_512.toml")),
    ("configs/ade20k/fcn_vit-b_512.toml", include_str!("../../configs/ade20k/fcn_vit-b_512.toml")),
    ("configs/ade20k/knet_vit-b_512.toml", include_str!("../../configs/ade20k/knet_vit-b_512.toml")),
    ("configs/ade20k/mask2former_vit-b_512.toml", include_str!("../../configs/ade20k/mask2former_vit-b_512.toml")),
    ("configs/ade20k/maskformer_vit-b_512.toml", include_str!("../../configs/ade20k/maskformer_vit-b_512.toml")),
    ("configs/ade20k/segmenter_vit-b_512.toml", include_str!("../../configs/ade20k/segmenter_vit-b_512.toml")),
    ("configs/ade20k/structtoken-cse_vit-b_512.toml", include_str!("../../configs/ade20k/structtoken-cse_vit-b_512.toml")),
    ("configs/ade20k/structtoken-cse_vit-s_512.toml", include_str!("../../configs/ade20k/structtoken-cse_vit-s_512.toml")),
    ("configs/ade20k/structtoken-cse_vit-t_512.toml", include_str!("../../configs/ade20k/structtoken-cse_vit-t_512.toml")),
    ("configs/ade20k/structtoken-pwe_vit-b_512.toml", include_str!("../../configs/ade20k/structtoken-pwe_vit-b_512.toml")),
    ("configs/ade20k/structtoken-pwe_vit-l_640.toml", include_str!("../../configs/ade20k/structtoken-pwe_vit-l_640.toml")),
    ("configs/ade20k/structtoken-pwe_vit-s_512.toml", include_str!("../../configs/ade20k/structtoken-pwe_vit-s_512.toml")),
    ("configs/ade20k/structtoken-pwe_vit-t_512.toml", include_str!("../../configs/ade20k/structtoken-pwe_vit-t_512.toml")),
    ("configs/ade20k/structtoken-sse_vit-b_512.toml", include_str!("../../configs/ade20k/structtoken-sse_vit-b_512.toml")),
    ("configs/ade20k/structtoken-sse_vit-l_640.toml", include_str!("../../configs/ade20k/structtoken-sse_vit-l_640.toml")),
    ("configs/ade20k/structtoken-sse_vit-s_512.toml", include_str!("../../configs/ade20k/structtoken-sse_vit-s_512.toml")),
    ("configs/ade20k/structtoken-sse_vit-t_512.toml", include_str!("../../configs/ade20k/structtoken-sse_vit-t_512.toml")),
    ("configs/camvid/dinov2-s_pwe.toml", include_str!("../../configs/camvid/dinov2-s_pwe.toml")),
    ("configs/clothing/dinov2-s_pwe.toml", include_str!("../../configs/clothing/dinov2-s_pwe.toml")),
    ("configs/nuclei/unet_pwe.toml", include_str!("../../configs/nuclei/unet_pwe.toml")),
    ("configs/nuclei/vit-t_pwe.toml", include_str!("../../configs/nuclei/vit-t_pwe.toml")),
    ("configs/shapes/demo.toml", include_str!("../../configs/shapes/demo.toml")),
    ("configs/shapes/vit.toml", include_str!("../../configs/shapes/vit.toml")),
    ("configs/structure/both.toml", include_str!("../../configs/structure/both.toml")),
    ("configs/structure/color.toml", include_str!("../../configs/structure/color.toml")),
    ("configs/structure/parts.toml", include_str!("../../configs/structure/parts.toml")),
    ("configs/structure/shape.toml", include_str!("../../configs/structure/shape.toml")),
    ("configs/structure/texture.toml", include_str!("../../configs/structure/texture.toml")),
];

/// The recipe that is called as `path`, with or without `configs/`.
pub(super) fn find(path: &Path) -> Option<&'static str> {
    let called = path.to_str()?;
    let called = called.strip_prefix("./").unwrap_or(called);
    RECIPES
        .iter()
        .find(|(name, _)| *name == called || name.strip_prefix("configs/") == Some(called))
        .map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_in_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut there: Vec<String> = Vec::new();
        for folder in std::fs::read_dir(root.join("configs")).unwrap().map(|entry| entry.unwrap().path()) {
            if folder.ends_with("datasets") || !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&folder).unwrap() {
                let path = file.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                assert_eq!(find(Path::new(&name)).unwrap(), std::fs::read_to_string(&path).unwrap(), "{name}");
                there.push(name);
            }
        }
        assert_eq!(there.len(), RECIPES.len());
        assert!(find(Path::new("shapes/demo.toml")).is_some() && find(Path::new("demo.toml")).is_none());
    }
}
