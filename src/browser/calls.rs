//! What a page's script calls: bytes in, bytes out, in the module's memory.
//!
//! A script writes to what [`pathsum_input`] gives, calls one of the others, and reads what [`pathsum_output`] gives, which
//! holds until the next call. A call gives 0 when it went well; else the output is a line that says what was wrong.

use super::Session;
use crate::error::Result;
use std::cell::RefCell;

/// A page has one model. The module is a program of its own there, and this is what its `main` would hold.
#[derive(Default)]
struct State {
    input: Vec<u8>,
    output: Vec<u8>,
    session: Option<Session>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Room for so many bytes of input.
// SAFETY of the exported names, here and below: nothing else in the module begins with `pathsum_`.
#[unsafe(no_mangle)]
extern "C" fn pathsum_input(len: usize) -> *mut u8 {
    STATE.with_borrow_mut(|state| {
        state.input = vec![0; len];
        state.input.as_mut_ptr()
    })
}

/// Takes a model: the input's first bytes are its configuration, the rest its weights.
#[unsafe(no_mangle)]
extern "C" fn pathsum_load(config: usize) -> i32 {
    answer(|state| {
        let mut input = std::mem::take(&mut state.input);
        let weights = input.split_off(config.min(input.len()));
        let session = Session::load(&String::from_utf8_lossy(&input), weights)?;
        state.session = Some(session);
        Ok(Vec::new())
    })
}

/// Runs the model on the request that is the input.
#[unsafe(no_mangle)]
extern "C" fn pathsum_run() -> i32 {
    answer(|state| {
        let session = state.session.as_ref();
        let session = session.expect("a script loads a model before it runs one");
        let values = session.run(&state.input)?;
        Ok(bytemuck::cast_slice(&values).to_vec())
    })
}

/// Where the output is.
#[unsafe(no_mangle)]
extern "C" fn pathsum_output() -> *const u8 {
    STATE.with_borrow(|state| state.output.as_ptr())
}

/// How many bytes it has.
#[unsafe(no_mangle)]
extern "C" fn pathsum_output_len() -> usize {
    STATE.with_borrow(|state| state.output.len())
}

fn answer(call: impl FnOnce(&mut State) -> Result<Vec<u8>>) -> i32 {
    STATE.with_borrow_mut(|state| {
        let answered = call(state);
        let failed = answered.is_err();
        state.output = answered.unwrap_or_else(|e| e.to_string().into_bytes());
        i32::from(failed)
    })
}
