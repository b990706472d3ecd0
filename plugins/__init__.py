"""The built-in plugins, one package each; they come in by the same door as anybody else's."""
