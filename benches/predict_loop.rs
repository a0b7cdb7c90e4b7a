//! Milliseconds per image of the loop inside `structtoken predict`, without files: the peer of
//! `benches/python_package.py`.
//!
//!     cargo bench -p structtoken-benches --bench predict_loop -- MODEL PHOTO THREADS REPEAT

use std::path::Path;
use std::time::Instant;

use structtoken::predict::Predictor;
use structtoken::{Error, Result, device, model_file};

#[global_allocator]
static ALLOCATOR: structtoken::cli::Allocator = structtoken::cli::Allocator;

fn main() -> Result<()> {
    structtoken::cli::keep_freed_memory();
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [model, photo, threads, repeat] = &words[..] else {
        // As every benchmark of the workspace, it runs without arguments too.
        eprintln!("nothing to do: pass MODEL PHOTO THREADS REPEAT");
        return Ok(());
    };
    let number =
        |word: &String| word.parse::<usize>().map_err(|error| Error::new(format!("`{word}`")).with_source(error));
    let (threads, repeat) = (number(threads)?, number(repeat)?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| Error::new("cannot start threads").with_source(error))?;
    pool.install(|| {
        let (device, _) = device::open("cpu")?;
        let (network, card) = model_file::open(model, &device)?;
        let config = card.with_changes(&[], Path::new(model))?;
        let predictor = Predictor::new(network, config.data.preprocess, config.eval, device, card.classes)?;
        let image = predictor.read(photo)?;
        for at in 0..repeat + 2 {
            let start = Instant::now();
            let labels = predictor.predict(&image)?;
            std::hint::black_box(labels);
            // The first two find no memory that was freed before.
            if at >= 2 {
                println!("{:.4}", 1e3 * start.elapsed().as_secs_f64());
            }
        }
        Ok(())
    })
}
