from lightning_tricks._compat.wrappers import strip_wrappers


def test_only_what_wrappers_put_in_goes():
    assert strip_wrappers("_orig_mod.module.encoder.0._fsdp_wrapped_module.bias") == "encoder.0.bias"
    assert strip_wrappers("modules.0.weight") == "modules.0.weight"
