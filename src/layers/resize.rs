//! temp
use burn::tensor::{Tensor, TensorData, Device};
/// Mode
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode { /// a
 Nearest, /// b
 Bilinear, /// c
 Bicubic }
fn matrix(input: usize, output: usize, mode: Mode, ac: bool, device: &Device) -> Tensor<2> {
    let mut m = vec![0f32; input * output];
    for o in 0..output {
        let s = if ac { if output > 1 { o as f64 * (input - 1) as f64 / (output - 1) as f64 } else { 0.0 } } else { (o as f64 + 0.5) * input as f64 / output as f64 - 0.5 };
        match mode {
            Mode::Bilinear => { let s = s.max(0.0); let lo = (s as usize).min(input - 1); let hi = (lo + 1).min(input - 1); let t = (s - lo as f64) as f32; m[o * input + lo] += 1.0 - t; m[o * input + hi] += t; }
            Mode::Bicubic => { let f = s.floor(); let t = s - f; let a = -0.75f64;
                let c1 = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0; let c2 = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
                for (k, wgt) in [c2(t + 1.0), c1(t), c1(1.0 - t), c2(2.0 - t)].into_iter().enumerate() {
                    let i = (f as i64 - 1 + k as i64).clamp(0, input as i64 - 1) as usize; m[o * input + i] += wgt as f32; } }
            Mode::Nearest => { m[o * input + (o * input / output)] = 1.0; }
        }
    }
    Tensor::from_data(TensorData::new(m, [output, input]), device)
}
/// [b,c,h,w]
pub fn resize(x: Tensor<4>, (oh, ow): (usize, usize), mode: Mode, ac: bool) -> Tensor<4> {
    let [_, _, h, w] = x.dims(); let d = x.device();
    matrix(h, oh, mode, ac, &d).unsqueeze::<4>().matmul(x).matmul(matrix(w, ow, mode, ac, &d).transpose().unsqueeze::<4>())
}
/// [b,h,w,c]
pub fn resize_channels_last(x: Tensor<4>, size: (usize, usize), mode: Mode, ac: bool) -> Tensor<4> {
    resize(x.permute([0, 3, 1, 2]), size, mode, ac).permute([0, 2, 3, 1])
}
