"""Who calls what: the function mode, the running module, names, annotations of tensors."""

__all__: list[str] = []
