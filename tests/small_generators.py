"""Tiny models that generate: real caches and masks, seeded weights, and a tokenizer whose tokens are bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from modelkit.graphs import files
from modelkit.graphs.tape import Drawn, Tape, model_of, output, typed

WIDTH, POSITIONS = 8, 64
WORDS = 256 + 3
END, PAD, OTHER_END = 256, 257, 258
CONFIG = {"eos_token_id": [END, OTHER_END], "pad_token_id": PAD, "max_position_embeddings": POSITIONS}


def causal(folder: Path, seed: int = 0, **config: Any) -> Path:
    """One attention layer with positions, as a finished folder."""
    folder.mkdir(parents=True)
    tensors = files.TensorFile(folder)
    tape, ids, mask = Tape(tensors), typed("input_ids", "int64", ["batch", "sequence"]), _mask("total_sequence")
    positions = typed("position_ids", "int64", ["batch", "sequence"])
    past = _past("past_key_values.0.key", "past_sequence")
    random = np.random.default_rng(seed)
    places = tape.weight("places", random.normal(0, 1, (POSITIONS, WIDTH)).astype(np.float32))
    x = tape.node("x", "Add", _embedded(tape, ids, random, "words"), tape.node("at", "Gather", places, positions))
    total = tape.node("keys", "Concat", past, tape.node("key", "Unsqueeze", x, tape.ints(1)), axis=2)
    mixed = _attended(tape, x, total, mask, causal=True)
    logits = output(_head(tape, mixed, random), "logits", ["batch", "sequence", WORDS])
    present = output(total, "present.0.key", ["batch", 1, "total_sequence", WIDTH])
    drawn = Drawn([ids, mask, positions, past], [logits, present])
    files.save(model_of(tape, "tiny", drawn), tensors)
    return companions(folder, **config)


def merged(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Encoder and decoder in one graph with an `If`: the second branch hands the encoder's past on."""
    folder.mkdir(parents=True)
    tensors = files.TensorFile(folder)
    tape, mask = Tape(tensors), _mask("encoder_sequence")
    ids = typed("input_ids", "int64", ["batch", "encoder_sequence"])
    words = typed("decoder_input_ids", "int64", ["batch", "decoder_sequence"])
    past = _past("past_key_values.0.decoder.key", "past_decoder_sequence")
    known = _past("past_key_values.0.encoder.key", "past_encoder_sequence")
    later = typed("use_cache_branch", "bool", [1])
    random = np.random.default_rng(seed)
    read = tape.inner()
    said = read.node("said", "Unsqueeze", _embedded(read, ids, random, "source"), read.ints(1))
    hand = tape.inner()
    handed = hand.node("handed", "Identity", known)
    bodies = {name: ir.Graph([], [end], nodes=body.nodes, name=name)
              for name, body, end in (("then", hand, handed), ("else", read, said))}  # fmt: skip
    source = tape.node("encoder", "If", later, then_branch=bodies["then"], else_branch=bodies["else"])
    x = _embedded(tape, words, random, "words")
    total = tape.node("keys", "Concat", past, tape.node("key", "Unsqueeze", x, tape.ints(1)), axis=2)
    own = _attended(tape, x, total, _ones(tape, total), causal=True)
    mixed = _attended(tape, own, source, mask, name="cross")
    logits = output(_head(tape, mixed, random), "logits", ["batch", "decoder_sequence", WORDS])
    presents = [
        output(total, "present.0.decoder.key", ["batch", 1, "total_decoder_sequence", WIDTH]),
        output(source, "present.0.encoder.key", ["batch", 1, "encoder_sequence", WIDTH]),
    ]
    drawn = Drawn([ids, mask, words, past, known, later], [logits, *presents])
    files.save(model_of(tape, "tiny", drawn), tensors)
    return companions(folder, **{"decoder_start_token_id": PAD, **config})


def split(folder: Path, seed: int = 0, **config: Any) -> Path:
    """The model of `merged` in three graphs, each in a folder of its own."""
    parts = {"encoder_model": _encoder, "decoder_model": _decoder, "decoder_with_past_model": _decoder}
    for part, draw in parts.items():
        (folder / part).mkdir(parents=True)
        tensors = files.TensorFile(folder / part)
        tape = Tape(tensors)
        files.save(model_of(tape, part, draw(tape, np.random.default_rng(seed), "past" in part)), tensors)
    return companions(folder, **{"decoder_start_token_id": PAD, **config})


def _encoder(tape: Tape, random: np.random.Generator, _: bool) -> Drawn:
    ids, mask = typed("input_ids", "int64", ["batch", "encoder_sequence"]), _mask("encoder_sequence")
    said = output(_embedded(tape, ids, random, "source"), "last_hidden_state", ["batch", "encoder_sequence", WIDTH])
    return Drawn([ids, mask], [said])


def _decoder(tape: Tape, random: np.random.Generator, later: bool) -> Drawn:
    """The first step, or a later one that takes pasts instead of what the encoder said."""
    random.normal(0, 1, (WORDS, WIDTH))  # what the encoder takes of the seed
    mask = typed("encoder_attention_mask", "int64", ["batch", "encoder_sequence"])
    ids = typed("input_ids", "int64", ["batch", "decoder_sequence"])
    hidden = typed("encoder_hidden_states", "float32", ["batch", "encoder_sequence", WIDTH])
    past = _past("past_key_values.0.decoder.key", "past_decoder_sequence")
    known = _past("past_key_values.0.encoder.key", "encoder_sequence")
    x = _embedded(tape, ids, random, "words")
    keys = tape.node("key", "Unsqueeze", x, tape.ints(1))
    total = tape.node("keys", "Concat", past, keys, axis=2) if later else tape.node("keys", "Identity", keys)
    source = known if later else tape.node("source", "Unsqueeze", hidden, tape.ints(1))
    mixed = _attended(tape, _attended(tape, x, total, _ones(tape, total), causal=True), source, mask, name="cross")
    logits = output(_head(tape, mixed, random), "logits", ["batch", "decoder_sequence", WORDS])
    present = output(total, "present.0.decoder.key", ["batch", 1, "total_decoder_sequence", WIDTH])
    if later:
        return Drawn([mask, ids, past, known], [logits, present])
    said = output(source, "present.0.encoder.key", ["batch", 1, "encoder_sequence", WIDTH])
    return Drawn([mask, ids, hidden], [logits, present, said])


def _ones(tape: Tape, total: ir.Value) -> ir.Value:
    """int64[batch, total]: nothing of what a decoder has written is masked."""
    flat = tape.node("flat", "ReduceSum", total, tape.ints(1, 3), keepdims=0)
    return tape.node("ones", "Expand", tape.ints(1), tape.node("size", "Shape", flat))


def companions(folder: Path, **config: Any) -> Path:
    """config.json and a tokenizer of 256 bytes and three special tokens."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tokenizer(end: bool = False) -> Tokenizer:
    """Each byte a token; the id of a byte is its place in the byte-level alphabet. `end`: texts end with END."""
    made = Tokenizer(
        models.BPE({letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in ("<end>", "<pad>", "<over>")])
    if end:
        made.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", END)])
    return made


def _mask(axis: str) -> ir.Value:
    return typed("attention_mask", "int64", ["batch", axis])


def _past(name: str, axis: str) -> ir.Value:
    return typed(name, "float32", ["batch", 1, axis, WIDTH])


def _embedded(tape: Tape, ids: ir.Value, random: np.random.Generator, name: str) -> ir.Value:
    table = tape.weight(name, random.normal(0, 1, (WORDS, WIDTH)).astype(np.float32))
    return tape.node(f"{name}/embedded", "Gather", table, ids)


def _attended(
    tape: Tape, x: ir.Value, total: ir.Value, mask: ir.Value, *, causal: bool = False, name: str = "own"
) -> ir.Value:
    """float32[batch, sequence, WIDTH]: x, and what it finds in float32[batch, 1, total, WIDTH]."""
    keys = tape.node(f"{name}/flat", "Squeeze", total, tape.ints(1))
    scores = tape.node(f"{name}/scores", "MatMul", x, tape.node(f"{name}/turned", "Transpose", keys, perm=[0, 2, 1]))
    seen = tape.node(
        f"{name}/kept", "Cast", tape.node(f"{name}/mask", "Unsqueeze", mask, tape.ints(1)), to=ir.DataType.BOOL
    )
    if causal:
        shape = tape.node(f"{name}/shape", "Shape", scores, start=1)
        square = tape.node(f"{name}/square", "Expand", tape.constant(1.0, np.float32), shape)
        behind = tape.node(f"{name}/behind", "Sub", *(tape.node(f"{name}/{word}", "Squeeze", tape.node(
            f"{name}/{word}/size", "Shape", keys if word == "all" else x, start=1, end=2), tape.ints(0))
            for word in ("all", "new")))  # fmt: skip
        lower = tape.node(f"{name}/lower", "Trilu", square, behind, upper=0)
        seen = tape.node(f"{name}/seen", "And", seen, tape.node(f"{name}/bool", "Cast", lower, to=ir.DataType.BOOL))
    lowest = tape.constant(-1e9, np.float32)
    shares = tape.node(f"{name}/shares", "Softmax", tape.node(f"{name}/where", "Where", seen, scores, lowest), axis=-1)
    return tape.node(f"{name}/out", "Add", x, tape.node(f"{name}/mixed", "MatMul", shares, keys))


def _head(tape: Tape, x: ir.Value, random: np.random.Generator) -> ir.Value:
    return tape.node(
        "head", "MatMul", x, tape.weight("head/weight", random.normal(0, 1, (WIDTH, WORDS)).astype(np.float32))
    )
