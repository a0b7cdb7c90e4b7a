//! What `structtoken predict` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Computing;
use crate::cli::shard::{self, Chosen};
use crate::image::outlines::OutlineOptions;

const EXAMPLES: &str = "Examples:
  structtoken predict runs/a/model.safetensors photo.jpg --overlay            writes predictions/photo.png and photo_overlay.png
  structtoken predict runs/a/model.safetensors photos/ --out labels/          all images in a folder
  structtoken predict runs/a/model.safetensors photos/ --format geojson,coco  outlines
  structtoken predict runs/a/model.safetensors --list urls.txt --out s3://bucket/labels
  structtoken predict runs/a/model.safetensors --list urls.txt --out s3://bucket/labels --verify

Exit code: 0 if all is done, 3 if some images failed and all others are done, 130 if it was stopped by a signal and can be
continued, otherwise 1, or 2 for options that do not fit together.";

/// Label images with a model
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Model file, or @NAME of one that this build carries
    pub(crate) model: PathBuf,
    /// Images, or folders of images; in the folder of a dataset, masks are left out
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    pub(crate) inputs: Vec<PathBuf>,
    /// File with one path or URL (s3://, gs://, az://, https://) of an image per line, or - for stdin. What is done is
    /// noted in a manifest in --out, and the same command continues after it; outputs lie below --out as the images'
    /// paths
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Try the images of the list again that failed, by the manifest in --out; with --verify also those whose outputs
    /// are missing or changed
    #[arg(long)]
    pub(crate) only_failed: bool,
    /// Label nothing, but compare what is in --out with the list and the manifests of all shards (or of --shard), and
    /// print which images failed, or have outputs that are missing or changed
    #[arg(long)]
    pub(crate) verify: bool,
    /// With --list: stop after this many images in a row that failed by what may be the fault of a disk or a store, and
    /// note none of them as failed; 0 notes all and goes on
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) give_up_after: usize,
    /// Label every N-th image, starting at the I-th; auto is what an array job or MPI says
    #[arg(long, value_name = "I/N|auto", value_parser = crate::cli::value::<Chosen>)]
    pub(crate) shard: Option<Chosen>,
    #[command(flatten)]
    pub(crate) count: shard::Count,
    /// Folder for what is written; with --list also the URL of one (s3://, gs://, az://)
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    pub(crate) out: PathBuf,
    /// What to write; may be repeated, or list several with commas
    #[arg(long = "format", value_enum, value_name = "FORMAT", value_delimiter = ',', default_value = "png")]
    pub(crate) formats: Vec<OutputFormat>,
    /// Largest distance of simplified polygons from the pixel border, in pixels; below 0.5 they cover exactly the same
    /// pixels, and 0 keeps every corner
    #[arg(long, value_name = "PIXELS", default_value_t = OutlineOptions::default().tolerance)]
    pub(crate) tolerance: f64,
    /// Drop regions and fill holes of fewer pixels in polygons, run lengths and brush strokes
    #[arg(long, value_name = "PIXELS", default_value_t = OutlineOptions::default().min_area)]
    pub(crate) min_area: u64,
    /// Also write each image with its classes drawn over it
    #[arg(long)]
    pub(crate) overlay: bool,
    /// Also write the class probabilities, `[classes, height, width]`, as 16-bit .npy
    #[arg(long)]
    pub(crate) probabilities: bool,
    /// Also replace files that were not written by an earlier prediction
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Change a setting of the model, for instance eval.mode=slide for images that are too large as a whole; may be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Print what was written to stdout, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

/// What is written of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// NAME.png: the label map as an indexed PNG with the classes' colours
    Png,
    /// NAME_overlay.png: the image with its classes drawn over it
    Overlay,
    /// NAME.geojson: polygons with holes of all regions, in pixels
    Geojson,
    /// coco.json: polygons of all images
    Coco,
    /// coco_rle.json: run lengths of all images, one mask per class and image
    CocoRle,
    /// NAME_label_studio.json: a task with brush regions as predictions
    LabelStudio,
    /// NAME_stats.json: pixels, share and regions of each class
    Stats,
    /// NAME.npy: the label map as an array of uint8, height x width
    Npy,
}
