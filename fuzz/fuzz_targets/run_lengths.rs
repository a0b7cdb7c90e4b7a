#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| structtoken_fuzz::targets::run_lengths(bytes));
