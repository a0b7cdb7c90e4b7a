#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| structtoken::serve::untrusted::label_studio_request(bytes));
