//! Held to pycocotools, label-studio-sdk, OpenCV and shapely; `scripts/outlines.py` wrote the values.

use serde::Deserialize;

use crate::image::Labels;
use crate::image::outlines::*;

#[derive(Deserialize)]
struct Case {
    height: usize,
    width: usize,
    ids: Vec<u8>,
    classes: Vec<Class>,
}

#[derive(Deserialize)]
struct Class {
    class: u8,
    counts: String,
    area: u64,
    bbox: [u32; 4],
    brush: String,
    polygons: Vec<Shape>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Shape {
    area: u64,
    rings: Vec<Vec<[u32; 2]>>,
}

/// A ring without points that are not corners, from its least corner on.
fn canonical(ring: &[[u32; 2]]) -> Vec<[u32; 2]> {
    let corner = |at: usize| {
        let [a, p, b] = [ring.len() - 1, 0, 1].map(|step| ring[(at + step) % ring.len()].map(i64::from));
        (p[0] - a[0]) * (b[1] - p[1]) != (p[1] - a[1]) * (b[0] - p[0])
    };
    let mut kept: Vec<_> = (0..ring.len()).filter(|at| corner(*at)).map(|at| ring[at]).collect();
    let first = (0..kept.len()).min_by_key(|at| kept[*at]).unwrap();
    kept.rotate_left(first);
    kept
}

#[test]
fn outlines_are_those_of_the_tools_that_others_use() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/fixtures/outlines.json")).unwrap();
    assert!(cases.len() > 6);
    let exact = OutlineOptions { tolerance: 0.0, min_area: 0 };
    for Case { height, width, ids, classes } in cases {
        let labels = Labels { width, height, ids };
        let found = polygons(&labels, exact);
        let runs = coco_annotations(&labels, 1, 1, CocoForm::Rle, exact);
        let statistics = statistics(&labels, &[]).classes;
        assert_eq!((runs.len(), statistics.len()), (classes.len(), classes.len()));
        for ((class, run), counted) in classes.into_iter().zip(runs).zip(statistics) {
            assert_eq!(CocoRle::of(&labels, class.class).counts, class.counts);
            assert_eq!((run.category_id, run.area, run.bbox), (u64::from(class.class) + 1, class.area, class.bbox));
            assert_eq!((counted.id, counted.pixels), (class.class, class.area));
            assert_eq!(counted.regions, class.polygons.len() as u64);
            let brush: String =
                label_studio_rle(&labels, class.class).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(brush, class.brush);
            let of_class = found.iter().filter(|polygon| polygon.class == class.class);
            let mut shapes: Vec<Shape> = of_class
                .map(|polygon| {
                    let mut holes: Vec<_> = polygon.holes.iter().map(|hole| canonical(hole)).collect();
                    holes.sort();
                    holes.insert(0, canonical(&polygon.exterior));
                    Shape { area: polygon.area, rings: holes }
                })
                .collect();
            shapes.sort_by(|a, b| a.rings.cmp(&b.rings));
            assert_eq!(shapes, class.polygons);
        }
    }
}

/// Writes what `scripts/outlines.py check` reads.
#[test]
#[ignore = "writes files for a script"]
fn written() {
    let folder = std::path::PathBuf::from(std::env::var_os("OUTLINES").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let names: Vec<String> = (0..255).map(|class| class.to_string()).collect();
    for seed in 0..300 {
        let labels = super::tests::random(seed);
        let tolerance = [0.0, 0.49, 1.0, 2.5][seed as usize % 4];
        let options = OutlineOptions { tolerance, min_area: 0 };
        let write = |ending: &str, bytes: &[u8]| {
            std::fs::write(folder.join(format!("{seed}_{tolerance}{ending}")), bytes).unwrap();
        };
        write(".npy", &crate::predict::encode_npy(&labels));
        write(".geojson", &serde_json::to_vec(&geojson(&labels, &names, "a.png", options)).unwrap());
        write(".task.json", &serde_json::to_vec(&label_studio_task(&labels, &names, "a.png", "model")).unwrap());
        for (ending, form) in [(".coco.json", CocoForm::Polygons), (".coco_rle.json", CocoForm::Rle)] {
            let mut writer = CocoWriter::new(Vec::new(), &names, form, options).unwrap();
            writer.add("a.png", &labels).unwrap();
            write(ending, &writer.finish().unwrap());
        }
    }
}
