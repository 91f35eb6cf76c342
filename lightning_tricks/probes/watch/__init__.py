"""Who calls what: the function mode, the running module, names, remarks about tensors."""
