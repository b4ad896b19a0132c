//! Times candle-transformers' LLaMA at SmolLM2-135M's sizes, in f32, with random weights.
//!
//! `candle-peer WORK SECONDS` prints a JSON line, {"work": ..., "median_s": ...}. A work is `BATCHxPOS` or `64_one_by_one`:
//! 64 tokens after a prompt of 16. candle's model gives the logits of the last position alone.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const CONFIG: Config = Config {
    hidden_size: 576,
    intermediate_size: 1536,
    vocab_size: 49152,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    use_flash_attn: false,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000.0,
    bos_token_id: None,
    eos_token_id: None,
    rope_scaling: None,
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
};

fn weights() -> Result<VarBuilder<'static>> {
    let c = &CONFIG;
    let (d, d_mlp, d_kv) = (c.hidden_size, c.intermediate_size, 3 * 64);
    let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![c.vocab_size, d])];
    shapes.push(("model.norm.weight".into(), vec![d]));
    for l in 0..c.num_hidden_layers {
        for (name, shape) in [
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![d_kv, d]),
            ("self_attn.v_proj", vec![d_kv, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![d_mlp, d]),
            ("mlp.up_proj", vec![d_mlp, d]),
            ("mlp.down_proj", vec![d, d_mlp]),
        ] {
            shapes.push((format!("model.layers.{l}.{name}.weight"), shape));
        }
    }
    let mut tensors = HashMap::new();
    for (name, shape) in shapes {
        tensors.insert(name, Tensor::randn(0f32, 0.02, shape, &Device::Cpu)?);
    }
    Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}

fn ids(batch: usize, from: usize, to: usize) -> Result<Tensor> {
    let ids = (0..batch).flat_map(|b| (from..to).map(move |i| ((b * to + i) * 7919 % 49152) as u32));
    Tensor::from_vec(ids.collect(), (batch, to - from), &Device::Cpu)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, work, seconds] = &arguments[..] else {
        panic!("usage: candle-peer WORK SECONDS");
    };
    let model = Llama::load(weights()?, &CONFIG)?;
    let once = || -> Result<Duration> {
        if work == "64_one_by_one" {
            let mut cache = Cache::new(true, DType::F32, &CONFIG, &Device::Cpu)?;
            model.forward(&ids(1, 0, 16)?, 0, &mut cache)?;
            let start = Instant::now();
            for i in 16..80 {
                model.forward(&ids(1, i, i + 1)?, i, &mut cache)?;
            }
            return Ok(start.elapsed());
        }
        let (batch, pos) = work.split_once('x').expect("BATCHxPOS");
        let tokens = ids(batch.parse().unwrap(), 0, pos.parse().unwrap())?;
        let mut cache = Cache::new(false, DType::F32, &CONFIG, &Device::Cpu)?;
        let start = Instant::now();
        model.forward(&tokens, 0, &mut cache)?;
        Ok(start.elapsed())
    };
    once()?;
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || start.elapsed().as_secs_f64() < seconds.parse().expect("seconds") {
        times.push(once()?);
    }
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    println!(r#"{{"work": "{work}", "median_s": {median}}}"#);
    Ok(())
}
