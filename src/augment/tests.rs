use super::*;
use crate::image::{IGNORE, Image, Labels};

fn sample(width: usize, height: usize) -> Sample {
    let ids = (0..width * height).map(|i| (i % width / 5 + i / width / 7) as u8 % 5).collect::<Vec<u8>>();
    let pixels = ids.iter().flat_map(|id| [id * 40 + 20, id * 30 + 9, 200 - id * 35]).collect();
    Sample { image: Image { width, height, pixels }, labels: Labels { width, height, ids } }
}

#[test]
fn scales_are_the_references() {
    let golden = golden::Pipeline::read();
    let draws = golden.json["random_sample_u"].as_array().unwrap();
    for (u, scale) in draws.iter().zip(golden.json["random_sample_ratio"].as_array().unwrap()) {
        let range = ResizeRange { keep_ratio: false, ..ResizeRange::default() };
        let (long, short) = range.size((1, 1), u.as_f64().unwrap());
        assert_eq!([long, short].map(|n| n as u64), [0, 1].map(|i| scale[i].as_u64().unwrap()));
    }
    assert_eq!(draws.len(), 8);
}

#[test]
fn the_result_has_the_crops_size_and_labels_stay_on_their_pixels() {
    // Colours are a function of the label, so they must still agree away from blended borders.
    let color_of: Vec<[u8; 3]> = (0..5u8).map(|id| [id * 40 + 20, id * 30 + 9, 200 - id * 35]).collect();
    let resize = Some(ResizeRange { scale: Some([160, 80]), ..ResizeRange::default() });
    let config = AugmentConfig { resize, crop: [64, 72], photometric: false, ..AugmentConfig::default() };
    let (mut agree, mut all) = (0, 0);
    for seed in 0..40 {
        let varied = augment(&sample(90, 70), &config, &mut Rng::new(seed, &[]));
        assert_eq!((varied.image.width, varied.image.height, varied.image.pixels.len()), (72, 64, 72 * 64 * 3));
        for (rgb, id) in varied.image.pixels.as_chunks::<3>().0.iter().zip(&varied.labels.ids) {
            if *id == IGNORE {
                assert_eq!(*rgb, config.pad);
                continue;
            }
            all += 1;
            agree += usize::from(*rgb == color_of[usize::from(*id)]);
        }
    }
    assert!(all > 100_000 && agree as f64 > 0.5 * all as f64, "{agree} of {all}");
}

#[test]
fn labels_follow_every_movement() {
    let sample = sample(90, 70);
    let color_of = |id: u8| [id * 40 + 20, id * 30 + 9, 200 - id * 35];
    let moved: [fn(&mut AugmentConfig); 3] = [
        |config| config.vertical_flip = 1.0,
        |config| config.rotate = 40.0,
        |config| config.rand_augment = Some(RandAugment { ops: 5, magnitude: 12.0 }),
    ];
    for (which, change) in moved.iter().enumerate() {
        let mut config = AugmentConfig { flip: 0.5, ..AugmentConfig::plain([64, 72]) };
        change(&mut config);
        let (mut agree, mut all, mut differ) = (0, 0, 0);
        for seed in 0..30 {
            let mut varied = augment(&sample, &config, &mut Rng::new(seed, &[]));
            differ +=
                usize::from(varied != augment(&sample, &AugmentConfig::plain([64, 72]), &mut Rng::new(seed, &[])));
            if which == 2 {
                // Only movements: the colours are another test's.
                let mut rng = Rng::new(seed, &[7]);
                let drawn = RandAugment { ops: 5, magnitude: 12.0 }.draw((72, 64), &mut rng);
                varied =
                    drawn.affine.warp(&sample, (90, 70), crate::image::resize::Window::whole((90, 70)), config.pad);
            }
            for (rgb, id) in varied.image.pixels.as_chunks::<3>().0.iter().zip(&varied.labels.ids) {
                if *id == IGNORE {
                    assert_eq!(*rgb, config.pad);
                    continue;
                }
                all += 1;
                agree += usize::from(*rgb == color_of(*id));
            }
        }
        assert!(all > 60_000 && agree * 2 > all && differ > 20, "{which}: {agree} of {all}, {differ}");
    }
}

#[test]
fn colours_change_and_labels_do_not() {
    let sample = sample(90, 70);
    let plain = |seed| augment(&sample, &AugmentConfig::plain([64, 72]), &mut Rng::new(seed, &[]));
    let changes: [fn(&mut AugmentConfig); 3] =
        [|config| config.grayscale = 1.0, |config| config.blur = 1.0, |config| config.cutout = 1.0];
    for change in changes {
        let mut config = AugmentConfig::plain([64, 72]);
        change(&mut config);
        let varied = augment(&sample, &config, &mut Rng::new(3, &[]));
        assert!(varied.labels == plain(3).labels && varied.image != plain(3).image);
    }
}

#[test]
fn one_key_gives_one_result_and_plain_changes_nothing() {
    let (config, sample) = (AugmentConfig { crop: [40, 40], ..AugmentConfig::default() }, sample(50, 60));
    let run = |seed| augment(&sample, &config, &mut Rng::new(seed, &[5]));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(augment(&sample, &AugmentConfig::plain([60, 50]), &mut Rng::new(1, &[])), sample);
}

#[test]
fn the_configuration_is_read_checked_and_written() {
    let read = |text: &str| toml::from_str::<AugmentConfig>(text);
    assert_eq!(read("").unwrap(), AugmentConfig::default());
    assert_eq!(read("resize = \"none\"").unwrap().resize, None);
    let range = read("[resize]\nscale = [2560, 640]").unwrap().resize.unwrap();
    assert_eq!((range.scale, range.ratio), (Some([2560, 640]), [0.5, 2.0]));
    let own = read("[resize]\nscale = \"image\"\nratio = [0.5, 1.0]").unwrap();
    let range = own.resize.as_ref().unwrap();
    assert_eq!((range.scale, range.size((300, 100), 0.0), range.size((300, 100), 1.0)), (None, (150, 50), (300, 100)));
    assert_eq!(read(&toml::to_string(&own).unwrap()).unwrap(), own);
    assert!(read("[resize]\nscale = \"images\"").is_err());
    assert!(read("resize = 'non'").unwrap_err().to_string().contains("line 1"));
    assert!(read("[resize]\nscales = [1, 2]").unwrap_err().to_string().contains("line 2"));
    for config in [AugmentConfig::default(), AugmentConfig::plain([3, 4])] {
        config.check().unwrap();
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
    let wrong = ["crop = [0, 5]", "flip = 1.5", "cat_max_ratio = 0.0", "[resize]\nratio = [2.0, 0.5]"];
    let more = ["blur = -1.0", "rotate = 200.0", "rand_augment = { magnitude = 31 }"];
    for text in wrong.iter().chain(&more) {
        assert!(read(text).unwrap().check().is_err(), "{text}");
    }
}
