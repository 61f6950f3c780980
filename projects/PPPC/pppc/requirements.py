def check_requirements():
    pass
