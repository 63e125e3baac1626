"""GPT2LMHeadModel of transformers with a job's sizes and weights."""

from transformers import GPT2Config, GPT2LMHeadModel


def load_gpt2(job):
    """The model, without dropout, on the CPU."""
    shape = job.shape
    config = GPT2Config(
        vocab_size=shape["vocabulary"], n_positions=shape["context"], n_embd=shape["width"],
        n_layer=shape["layers"], n_head=shape["heads"], resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    weights = job.load_weights()
    model.load_state_dict(
        {k if k.startswith("lm_head") else f"transformer.{k}": v for k, v in weights.items()}
    )
    model.tie_weights()
    return model
