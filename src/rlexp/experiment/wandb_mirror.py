"""placeholder"""
def start(directory, config): return None
def wait(mirror): pass
def new_id():
    import secrets
    return secrets.token_hex(4)
