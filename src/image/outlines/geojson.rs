//! Polygons as a GeoJSON FeatureCollection, in pixels of the image.

use serde::Serialize;

use crate::image::Labels;
use crate::image::outlines::{OutlineOptions, Polygon, name, polygons};

/// A FeatureCollection, to be written by serde: `serde_json::to_writer(file, &geojson(..))`.
///
/// ```json
/// {"type": "FeatureCollection",
///  "image": {"file_name": "a.jpg", "width": 640, "height": 480},
///  "features": [{"type": "Feature", "id": 1,
///                "properties": {"class": "road", "class_id": 0, "area": 5120},
///                "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [64, 0], [64, 80], [0, 80], [0, 0]]]}}]}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GeoJson {
    r#type: &'static str,
    image: Picture,
    features: Vec<Feature>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Picture {
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Feature {
    r#type: &'static str,
    id: usize,
    properties: Properties,
    geometry: Geometry,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Properties {
    class: String,
    class_id: u8,
    area: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Geometry {
    r#type: &'static str,
    coordinates: Vec<Vec<[u32; 2]>>,
}

/// The regions of a label map as features, in the order of [`polygons`](super::polygons()). `names` are those of the
/// classes; a class without one is called by its number. `image` is what the image is called in the file.
#[must_use]
pub fn geojson(labels: &Labels, names: &[String], image: &str, options: OutlineOptions) -> GeoJson {
    let closed = |mut ring: Vec<[u32; 2]>| {
        ring.extend(ring.first().copied());
        ring
    };
    let feature = |(id, polygon): (usize, Polygon)| Feature {
        r#type: "Feature",
        id,
        properties: Properties { class: name(names, polygon.class), class_id: polygon.class, area: polygon.area },
        geometry: Geometry {
            r#type: "Polygon",
            coordinates: std::iter::once(polygon.exterior).chain(polygon.holes).map(closed).collect(),
        },
    };
    GeoJson {
        r#type: "FeatureCollection",
        image: Picture { file_name: image.to_owned(), width: labels.width, height: labels.height },
        features: (1..).zip(polygons(labels, options)).map(feature).collect(),
    }
}
